"""docs/periods.md is run: every Python block in order, and what it prints is what the page says it prints."""

import contextlib
import io
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from billing import periods

PAGE = Path(__file__).resolve().parents[2] / "docs" / "periods.md"
TEXT = PAGE.read_text()
BLOCK = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)


def test_every_example_prints_what_the_page_says() -> None:
    names: dict[str, Any] = {}
    blocks = BLOCK.findall(TEXT)
    assert len(blocks) == TEXT.count("```python") == 6
    for code, said in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102 - the page is ours
        assert printed.getvalue() == said


def test_everything_that_can_be_said_and_asked_is_on_the_page() -> None:
    for field in fields(periods.Rule):
        assert f"| `{field.name}` |" in TEXT, field.name
    for word in (*periods.INTERVALS, *periods.ALIGNMENTS, *periods.DAY_COUNTS, *periods.SELECTIONS):
        assert word in TEXT, word
    # Those that are older than rules count from an anchor without one.
    older = {"add_intervals", "nth_period", "index_containing"}
    asked = {name for name, value in vars(periods).items() if getattr(value, "__module__", "") == periods.__name__}
    functions = {name for name in asked if name.islower() and not name.startswith("_")} - older
    assert {name for name in functions if f"`{name}" not in TEXT} == set()
