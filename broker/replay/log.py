"""What a chat log holds, as plain data: persons and what they did, in order. No I/O, no format.

A person keeps their number through all renames; the nick is only what they are called.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Said:
    """A line of a person. `body` is a string for `text`, a map for `custom`."""

    at_ms: int
    person: int
    kind: str
    body: Any


@dataclass(frozen=True, slots=True)
class Joined:
    """A person comes in."""

    at_ms: int
    person: int


@dataclass(frozen=True, slots=True)
class Left:
    """A person goes away."""

    at_ms: int
    person: int


@dataclass(frozen=True, slots=True)
class Renamed:
    """A person is called otherwise from here on."""

    at_ms: int
    person: int
    nick: str


Happening = Said | Joined | Left | Renamed


@dataclass(frozen=True, slots=True)
class Log:
    """A stretch of a room's life. `at_ms` counts from its first minute.

    `nicks` are the persons' first names; `present` those who were there from the start.
    """

    name: str
    nicks: tuple[str, ...]
    present: tuple[int, ...]
    happenings: tuple[Happening, ...]

    @property
    def messages(self) -> int:
        """How many lines were said."""
        return sum(isinstance(each, Said) for each in self.happenings)
