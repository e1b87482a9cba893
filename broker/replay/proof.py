"""What must have come of a replay, and whether it did. No I/O.

The ledger is written from the log alone, an entry before each is caused; what clients see and what
is read back are held against it. The first difference is kept and ends the proof.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from broker.client import Message

SHOWN_CHARS = 200
"""How much of an entry a difference shows."""


class ProofFailed(Exception):
    """The replay and the log differ; the text tells where first."""


@dataclass(frozen=True, slots=True)
class Expected:
    """An entry that must be there. For `system` entries, `body` is what happened and to whom."""

    sender: int
    kind: str
    body: Any

    @classmethod
    def system(cls, event: str, user: int) -> Expected:
        """The entry of a user's own coming, going or founding."""
        return cls(user, "system", (event, (user,)))

    @classmethod
    def of(cls, message: Message) -> Expected:
        """What a real entry amounts to."""
        body = message.body
        if message.kind == "system" and isinstance(body, dict):
            body = (body.get("event"), tuple(body.get("users") or ()))
        return cls(message.sender, message.kind, body)


class Ledger:
    """All entries of one room that must be there, in order; the first has seq 1."""

    def __init__(self) -> None:
        self._entries: list[Expected] = []

    @property
    def head(self) -> int:
        """The newest entry's seq."""
        return len(self._entries)

    def write(self, entry: Expected) -> int:
        """An entry is about to be caused; its seq."""
        self._entries.append(entry)
        return len(self._entries)

    def check(self, message: Message, where: str) -> None:
        """Raise `ProofFailed` unless this is the entry of its seq."""
        if not 1 <= message.seq <= len(self._entries):
            raise ProofFailed(f"{where}: seq {message.seq} is beyond the log's {self.head} entries")
        expected, found = self._entries[message.seq - 1], Expected.of(message)
        if found != expected:
            raise ProofFailed(
                f"{where}: seq {message.seq} is {_shown(found)}, "
                f"where the log has {_shown(expected)}"
            )

    def check_history(self, messages: Iterable[Message]) -> None:
        """Raise `ProofFailed` unless these are all entries, in order."""
        last = 0
        for message in messages:
            if message.seq != last + 1:
                raise ProofFailed(f"history: seq {message.seq} follows {last}")
            self.check(message, "history")
            last = message.seq
        if last != self.head:
            raise ProofFailed(f"history: it ends at seq {last}, the log at {self.head}")


class View:
    """What one person saw and must have seen: stretches from a coming to a going."""

    def __init__(self, name: str, ledger: Ledger) -> None:
        self.name = name
        self.last = 0
        """The seq seen last."""
        self.entries = 0
        """How many were seen."""
        self._ledger = ledger
        self._seen: list[list[int]] = []
        self._due: list[list[int]] = []

    def came(self, seq: int) -> None:
        """This entry and those after it must be seen."""
        self._due.append([seq, 0])

    def went(self, seq: int) -> None:
        """This entry is the last one that must be seen, until they come again."""
        self._due[-1][1] = seq

    @property
    def there(self) -> bool:
        """Whether the person is there."""
        return bool(self._due) and self._due[-1][1] == 0

    def saw(self, message: Message) -> None:
        """An entry arrived. Raises `ProofFailed` if it is not the log's, old, or not due."""
        seq = message.seq
        self._ledger.check(message, self.name)
        if seq <= self.last:
            raise ProofFailed(f"{self.name}: seq {seq} came after {self.last}")
        if seq == self.last + 1 and self._seen:
            self._seen[-1][1] = seq
        else:
            self._seen.append([seq, seq])
        self.last = seq
        self.entries += 1

    def check(self) -> None:
        """Raise `ProofFailed` unless all that was due was seen, and no more."""
        head = self._ledger.head
        due = _joined([first, last or head] for first, last in self._due)
        if self._seen != due:
            raise ProofFailed(f"{self.name}: saw {_stretches(self._seen)}, not {_stretches(due)}")


def _joined(stretches: Iterable[list[int]]) -> list[list[int]]:
    """Stretches that touch, as one: what is seen does not tell where one ended."""
    joined: list[list[int]] = []
    for first, last in stretches:
        if joined and joined[-1][1] + 1 == first:
            joined[-1][1] = last
        else:
            joined.append([first, last])
    return joined


def _stretches(stretches: list[list[int]]) -> str:
    return _cut(", ".join(f"{first}-{last}" for first, last in stretches) or "nothing")


def _shown(entry: Expected) -> str:
    return _cut(f"{entry.kind} {entry.body!r} of user {entry.sender}")


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"
