"""Fields of replies and events as docs/protocol.md writes them, and whether a frame fits them.

The notation: `field`, `field?` (there only where it applies), `field` [*shape*] (a list of them),
`field` (*shape*), and + *shape* (all of its fields).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

_PART = re.compile(
    r"`(?P<name>\w+)(?P<optional>\?)?`(?: \[\*(?P<items>[\w' ]+)\*\]| \(\*(?P<one>[\w' ]+)\*\))?"
    r"|\+ \*(?P<include>[\w' ]+)\*"
)

ALWAYS = frozenset({"t", "id"})


@dataclass(frozen=True)
class Shape:
    """Which fields a map has, may have, and what is in those that hold maps."""

    required: dict[str, str] = field(default_factory=dict)
    optional: dict[str, str] = field(default_factory=dict)
    lists: frozenset[str] = frozenset()


class Shapes:
    """All shapes of a document, by name."""

    def __init__(self, rows: list[list[str]]) -> None:
        self._cells = {name.strip("*"): cell for name, cell in rows}

    def parse(self, cell: str) -> Shape:
        """A cell of a table; whatever is not in the notation is an error."""
        rest = _PART.sub("", cell)
        assert not rest.strip(" ,+"), f"not in the notation: {rest!r} of {cell!r}"
        required: dict[str, str] = {}
        optional: dict[str, str] = {}
        lists: set[str] = set()
        for part in _PART.finditer(cell):
            if part["include"]:
                included = self.parse(self._cells[part["include"]])
                required |= included.required
                optional |= included.optional
                lists |= included.lists
            else:
                (optional if part["optional"] else required)[part["name"]] = (
                    part["items"] or part["one"] or ""
                )
                if part["items"]:
                    lists.add(part["name"])
        return Shape(required, optional, frozenset(lists))

    def check(self, cell: str, frame: dict[str, Any], where: str) -> set[str]:
        """Assert that a frame has these fields and no others; which optional ones it has."""
        shape = self.parse(cell)
        given = frame.keys() - (ALWAYS - shape.required.keys())
        missing = shape.required.keys() - given
        unknown = given - shape.required.keys() - shape.optional.keys()
        assert not missing, f"{where}: without {sorted(missing)}"
        assert not unknown, f"{where}: {sorted(unknown)} are not documented"
        for name, inner in (shape.required | shape.optional).items():
            if inner and frame.get(name) is not None:
                held = frame[name] if name in shape.lists else [frame[name]]
                for item in held:
                    self.check(self._cells[inner], item, f"{where}.{name}")
        return given & shape.optional.keys()
