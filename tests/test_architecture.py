"""The direction of imports: customers <- meters <- billing, pure modules on the ground floor, edges on the outside."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
APPS = ("customers", "meters", "billing")
# What the core of each app may import of the others.
BELOW = {
    "customers": {"customers"},
    "meters": {"customers", "meters"},
    "billing": {"customers", "meters", "billing"},
}
EDGES = {"admin", "api", "portal", "tasks", "management"}
PURE = {
    "meters/filters.py",
    "meters/aggregation.py",
    "billing/crediting.py",
    "billing/money.py",
    "billing/periods.py",
    *(f"billing/pricing/{path.name}" for path in (ROOT / "billing" / "pricing").glob("*.py")),
}
NOT_PURE = ("django", "rest_framework", "celery", "psycopg", "config")


def _modules() -> list[Path]:
    return [path for app in APPS for path in sorted((ROOT / app).rglob("*.py")) if "migrations" not in path.parts]


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return found


def _is_edge(relative: Path) -> bool:
    return relative.with_suffix("").parts[1] in EDGES


def _names_edge(module: str) -> bool:
    parts = module.split(".")
    return len(parts) > 1 and parts[0] in APPS and parts[1] in EDGES


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    relative = path.relative_to(ROOT)
    imports = _imports(path)
    if not _is_edge(relative):
        for module in imports:
            top = module.split(".")[0]
            assert top not in APPS or top in BELOW[relative.parts[0]], f"{relative} imports {module}"
            assert not _names_edge(module), f"{relative} is no edge and imports the edge {module}"
            assert top != "config", f"{relative} imports {module}: config is outside everything"


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_know_no_django_and_no_clock(name: str) -> None:
    for module in _imports(ROOT / name):
        top = module.split(".")[0]
        assert top not in NOT_PURE, f"{name} imports {module}"
        here, above = module.replace(".", "/"), module.replace(".", "/").rsplit("/", 1)[0]
        assert top not in APPS or PURE & {f"{here}.py", f"{above}.py", f"{here}/__init__.py", f"{above}/__init__.py"}, (
            f"{name} imports {module}, which is not pure"
        )
    source = (ROOT / name).read_text()
    assert ".now(" not in source, f"{name} reads the clock"
    assert "today()" not in source, f"{name} reads the clock"
