"""Which entries an application gets: each once, in the order of its conversation. No I/O.

For every conversation there is a cursor: the seq of the newest entry handed out. A live entry that
follows it is handed out; one at or before it is a repetition and dropped; one beyond it is held
until the entries between have been pulled with `history after`, whose answer is the authority on
what there is to read. `next_pull` says where something is missing.

While a new connection catches up (from `lost` to `resumed`) nothing is pulled for gaps: the `sync`
under way fills most of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from broker.client.limits import HELD_ENTRIES
from broker.client.model import Message

_UNKNOWN = -1
_LEAVING = frozenset({"left", "kicked", "removed", "dissolved"})


@dataclass(slots=True)
class _Log:
    cursor: int = _UNKNOWN
    target: int = 0
    """An entry with this seq is known to exist."""
    first: int = 0
    """The smallest live seq seen while the cursor was unknown."""
    member: bool = True
    behind: bool = False
    """The broker sends nothing live until a pull has reached the head."""
    held: dict[int, Message] = field(default_factory=dict)


class Cursors:
    """The cursors of one client.

    Conversations in `start` continue after the seq given there. Of others, those that the first
    `sync` lists begin at their newest entry (`from_now`) or at their start; those that appear later
    begin at the first entry seen live, or where the user became a member if that was meanwhile.
    """

    def __init__(self, start: Mapping[str, int], *, from_now: bool) -> None:
        self.user = 0
        """Whose leaving ends a conversation; known after the first welcome."""
        self.from_now = from_now
        self.resuming = True
        self._logs = {conv: _Log(seq) for conv, seq in start.items()}
        self._wanted: dict[str, None] = {}
        self._pulling: set[str] = set()
        self._held = 0

    def positions(self) -> dict[str, int]:
        """The cursor of every conversation that has one."""
        return {conv: log.cursor for conv, log in self._logs.items() if log.cursor >= 0}

    def reached(self, conv: str) -> int:
        """The newest seq of `conv` that is known to exist, 0 if none is."""
        log = self._logs.get(conv)
        return 0 if log is None else max(log.cursor, log.target, 0)

    def live(self, entry: Message, *, room: bool = True) -> list[Message]:
        """An entry came by itself: what may be handed out now. Without `room`, nothing may: it is
        left to be pulled later."""
        log = self._logs.setdefault(entry.conv, _Log())
        if log.cursor == _UNKNOWN and self.resuming:
            log.first = min(log.first or entry.seq, entry.seq)
        elif log.cursor == _UNKNOWN or (not log.member and entry.seq > log.cursor):
            log.cursor, log.member = entry.seq - 1, True
        if log.cursor != _UNKNOWN and entry.seq <= log.cursor:
            return []
        if room and entry.seq == log.cursor + 1 and log.cursor != _UNKNOWN:
            return [*self._advance(log, entry), *self._drain(log)]
        self._hold(log, entry, room=room)
        self._want(entry.conv, log)
        return []

    def behind(self, conv: str, head: int) -> None:
        """The broker stopped live entries of `conv` until the client has pulled up to `head`."""
        log = self._logs.setdefault(conv, _Log())
        if log.cursor == _UNKNOWN and not self.resuming:
            log.cursor = 0
        log.target = max(log.target, head)
        log.behind = True
        self._want(conv, log)

    def synced(self, conv: str, head: int, since: int, entries: Iterable[Message]) -> list[Message]:
        """`sync` told of a conversation: what may be handed out now.

        `since` is the seq that made the user a member, 0 where that is not known.
        """
        log = self._logs.setdefault(conv, _Log())
        if log.cursor == _UNKNOWN:
            begin = head if self.from_now else max(since - 1, 0)
            log.cursor = min(begin, log.first - 1) if self.from_now and log.first else begin
        elif not log.member:
            log.cursor = max(log.cursor, since - 1)
        log.target = max(log.target, head)
        return self._take(log, entries)

    def resumed(self) -> list[Message]:
        """`sync` is through: what may be handed out now; from here on gaps are pulled."""
        ready: list[Message] = []
        from_now, self.resuming, self.from_now = self.from_now, False, False
        for conv, log in self._logs.items():
            if log.cursor == _UNKNOWN and log.first:
                log.cursor = log.first - 1
            elif log.cursor == _UNKNOWN:
                log.cursor = log.target if from_now else 0
            ready += self._drain(log)
            self._want(conv, log)
        return ready

    @property
    def lacking(self) -> bool:
        """Whether `next_pull` may have something to give."""
        return bool(self._wanted)

    def next_pull(self) -> tuple[str, int] | None:
        """A conversation that lacks entries, and after which seq. It is given out once; the pull
        ends with `page` or `gone`."""
        conv = next((conv for conv in self._wanted if conv not in self._pulling), None)
        if conv is None:
            return None
        del self._wanted[conv]
        self._pulling.add(conv)
        return conv, self._logs[conv].cursor

    def page(self, conv: str, entries: Sequence[Message], head: int) -> list[Message]:
        """A pull was answered: what may be handed out now."""
        log = self._logs[conv]
        self._pulling.discard(conv)
        log.target = max(log.target, head)
        ready = self._take(log, entries)
        if not entries and head > log.cursor:
            # Nothing between is readable for this user; go on with what is.
            log.cursor = min([head, *(seq - 1 for seq in log.held if seq > log.cursor)])
            ready += self._drain(log)
        log.behind = log.behind and log.cursor < head
        self._want(conv, log)
        return ready

    def gone(self, conv: str) -> None:
        """The conversation cannot be read (any more): what was missing stays missing."""
        log = self._logs[conv]
        self._pulling.discard(conv)
        log.cursor = max(log.cursor, log.target, 0)
        self._held -= len(log.held)
        log.held.clear()
        log.member = log.behind = False

    def lost(self) -> None:
        """The connection is gone; the next one begins with `sync`."""
        self.resuming = True
        self._wanted.clear()
        self._pulling.clear()
        for log in self._logs.values():
            log.behind = False

    def _take(self, log: _Log, entries: Iterable[Message]) -> list[Message]:
        ready = []
        for entry in entries:
            if entry.seq > log.cursor:
                ready += self._advance(log, entry)
        return ready + self._drain(log)

    def _advance(self, log: _Log, entry: Message) -> list[Message]:
        log.cursor = entry.seq
        if log.held.pop(entry.seq, None) is not None:
            self._held -= 1
        log.member = not self._leaves(entry)
        return [entry]

    def _drain(self, log: _Log) -> list[Message]:
        ready: list[Message] = []
        if not log.held:
            return ready
        for seq in [seq for seq in log.held if seq <= log.cursor]:
            del log.held[seq]
            self._held -= 1
        while (entry := log.held.get(log.cursor + 1)) is not None:
            ready += self._advance(log, entry)
        return ready

    def _hold(self, log: _Log, entry: Message, *, room: bool) -> None:
        log.target = max(log.target, entry.seq)
        if room and self._held < HELD_ENTRIES and entry.seq not in log.held:
            log.held[entry.seq] = entry
            self._held += 1

    def _want(self, conv: str, log: _Log) -> None:
        if not self.resuming and (log.behind or log.target > log.cursor):
            self._wanted[conv] = None

    def _leaves(self, entry: Message) -> bool:
        body = entry.body
        return (
            entry.kind == "system"
            and isinstance(body, dict)
            and body.get("event") in _LEAVING
            and (body["event"] == "dissolved" or self.user in (body.get("users") or ()))
        )
