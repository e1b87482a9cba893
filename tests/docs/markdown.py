"""Just enough Markdown for the tests of the documentation: tables, fenced blocks, generated blocks.

Never writes a file; whoever wants generated blocks renewed runs `tests.docs.blocks`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"

_BLOCK = re.compile(
    r"(?P<begin><!-- block: (?P<name>[^>]*?) -->\n)(?P<content>.*?)(?P<end><!-- end -->)",
    re.DOTALL,
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")
_RULE = re.compile(r"\|[ :|-]+\|")


class Table(NamedTuple):
    """A table under its nearest heading; cells as they are written."""

    heading: str
    header: list[str]
    rows: list[list[str]]


def tables(text: str) -> Iterator[Table]:
    """All tables of a document."""
    heading, found = "", list[list[str]]()
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            if not _RULE.fullmatch(line):
                found.append([cell.strip() for cell in _cells(line)])
            continue
        if found:
            header, *rows = found
            assert all(len(row) == len(header) for row in rows), f"a ragged table: {header}"
            yield Table(heading, header, rows)
            found = []
        if line.startswith("#"):
            heading = line.lstrip("# ")


def _cells(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line.strip()[1:-1])


def table(text: str, *header: str) -> list[list[str]]:
    """The rows of all tables whose header begins so, one after the other."""
    rows = [
        row
        for each in tables(text)
        if each.header[: len(header)] == list(header)
        for row in each.rows
    ]
    assert rows, f"there is no table {header}"
    return rows


def codes(cell: str) -> list[str]:
    """What stands in backticks."""
    return _CODE.findall(cell)


def code(cell: str) -> str:
    """The one thing that stands in backticks."""
    (only,) = codes(cell)
    return only


def fences(text: str, language: str) -> list[str]:
    """The contents of all fenced blocks of a language."""
    return [content for name, content in _FENCE.findall(text) if name == language]


def render(header: list[str], rows: list[list[str]]) -> str:
    """A table as Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def block_names(text: str) -> list[str]:
    """The generated blocks of a document."""
    return [match["name"] for match in _BLOCK.finditer(text)]


def with_blocks(text: str, make: Callable[[str], str]) -> str:
    """The document with every generated block made anew."""
    return _BLOCK.sub(lambda m: f"{m['begin']}{make(m['name'])}{m['end']}", text)
