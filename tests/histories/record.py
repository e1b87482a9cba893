"""All that the clients of one run did and saw, as plain data for the checker."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import trio

Map = dict[str, Any]


@dataclass
class Seen:
    """An entry that a client took into its copy of a log."""

    seq: int
    sender: int
    kind: str
    body: Any
    live: bool


@dataclass
class Intent:
    """Something with a key that a client wants in a log, and sends until it has an answer."""

    user: int
    t: str
    conv: str
    key: str
    fields: Map
    patient: bool = False
    """It is not said again before it was looked for in the log."""
    doubtful: bool = False
    """Sent once at least, without an answer that says what became of it."""
    seq: int = 0
    """Where it was acknowledged; 0: not yet."""
    refused: str = ""
    begun_at: float = 0.0
    acknowledged_at: float = 0.0
    abandoned: bool = False
    """Its client went away and is not to come back."""

    @property
    def settled(self) -> bool:
        return bool(self.seq or self.refused)


@dataclass
class DeviceRecord:
    """One client: its copy of each log, in the order in which it took entries into it."""

    name: str
    user: int
    logs: dict[str, list[Seen]] = field(default_factory=dict)
    cursors: dict[str, int] = field(default_factory=dict)
    shown: dict[str, set[int]] = field(default_factory=dict)
    """Every seq that any frame had, whether the client took the entry or not."""
    connected: bool = False
    """Its connection is open and it has pulled what it missed."""
    presence: dict[int, bool] = field(default_factory=dict)
    """Who is online, as this connection was told last."""
    unanswered: int = 0
    """Commands on the present connection that have no reply yet."""


class Record:
    def __init__(self, *, keep_trace: bool = False) -> None:
        self.intents: list[Intent] = []
        self.devices: list[DeviceRecord] = []
        self.violations: list[str] = []
        self.owed: list[tuple[int, str, int, str]] = []
        """Holes that are right if the log says that the user was out by then: (user, conversation,
        the seq after the hole, what to say)."""
        self.counts: dict[str, int] = {}
        self.trace: list[str] | None = [] if keep_trace else None
        self._hash = hashlib.blake2b(digest_size=8)
        self._start = trio.current_time()

    def wrong(self, what: str) -> None:
        """Something that no client may ever see."""
        self.violations.append(f"{self.now():.3f} {what}")
        self.note(f"WRONG {what}")

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def note(self, what: str) -> None:
        """A line of the trace: two runs are the same if their traces are."""
        line = f"{self.now():.6f} {what}"
        self._hash.update(line.encode())
        if self.trace is not None:
            self.trace.append(line)

    def now(self) -> float:
        """Seconds since the beginning."""
        return trio.current_time() - self._start

    @property
    def trace_hash(self) -> str:
        return self._hash.hexdigest()
