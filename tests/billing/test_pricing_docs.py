"""docs/pricing.md is run: every Python block in order, and what it prints is what the page says it prints."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from billing.pricing import Conventions
from billing.pricing.data import AROUND, MODELS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pricing.md"
TEXT = PAGE.read_text()
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)


def _run() -> list[tuple[str, str, str]]:
    """Each block with what it printed and what it should have; all in one namespace, from the top of the page down."""
    names: dict[str, Any] = {}
    found = []
    for block in BLOCK.finditer(TEXT):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block[1], str(PAGE), "exec"), names)  # noqa: S102 - the page is ours
        found.append((block[1], printed.getvalue(), block[2] or ""))
    return found


RUN = _run()


@pytest.mark.parametrize("number", range(len(RUN)))
def test_an_example_prints_what_the_page_says(number: int) -> None:
    _code, printed, said = RUN[number]
    assert printed == said


def test_every_model_and_every_convention_is_on_the_page() -> None:
    for name in MODELS:
        assert f'"model": "{name}"' in TEXT, name
    for name in Conventions.__dataclass_fields__:
        row = next((line for line in TEXT.splitlines() if line.startswith(f"| `{name}` |")), "")
        assert row, name
        values = row.split("|")[2]
        field = Conventions.__dataclass_fields__[name]
        known = field.metadata.get("known") or ((False, True) if field.default is False else (True, False))
        words = [str(one).lower() if isinstance(one, bool) else one for one in known]
        assert [word.strip(" `") for word in values.split(",")] == words, name


def test_every_key_of_a_rule_is_on_the_page() -> None:
    for name in AROUND:
        assert f"`{name}`" in TEXT, name
