"""What nodes share, in one process: for tests, and for a broker that is alone. Never does I/O.

One object of each kind is shared by all nodes; of the bus, each node has its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from math import ceil

import trio

from storage.names import SLOTS
from storage.records import NodeRecord, SlotRecord

INBOX_MAX_BYTES = 64 * 1024 * 1024
"""What waits in one inbox of the bus; a message over it is lost, and its sender told so."""

SWEEP_MIN_ENTRIES = 1_024
"""Expired buckets and codes are looked for when there are this many, and at each doubling."""

_MINUTE_MS = 60_000


class MemoryLeases:
    """`storage.shared.Leases` in plain dicts; it never fails."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeRecord] = {}
        self._slots = [SlotRecord(slot) for slot in range(SLOTS)]
        self._agreed: dict[str, str] = {}

    async def beat(self, record: NodeRecord) -> bool:
        await trio.lowlevel.checkpoint()
        if self._beat_of(record.incarnation) not in (record.beat - 1, record.beat):
            return False
        self._nodes[record.incarnation] = copy(record)
        return True

    async def nodes(self) -> list[NodeRecord]:
        await trio.lowlevel.checkpoint()
        return [copy(record) for record in self._nodes.values()]

    async def remove(self, incarnation: str, beat: int) -> bool:
        await trio.lowlevel.checkpoint()
        if self._beat_of(incarnation) == beat:
            del self._nodes[incarnation]
        return incarnation not in self._nodes

    async def slots(self) -> list[SlotRecord]:
        await trio.lowlevel.checkpoint()
        return list(self._slots)

    async def claim(self, wanted: Sequence[SlotRecord]) -> list[SlotRecord]:
        await trio.lowlevel.checkpoint()
        for record in wanted:
            if self._slots[record.slot].epoch == record.epoch - 1:
                self._slots[record.slot] = record
        return [self._slots[record.slot] for record in wanted]

    async def agree(self, name: str, value: str) -> str:
        await trio.lowlevel.checkpoint()
        return self._agreed.setdefault(name, value)

    def _beat_of(self, incarnation: str) -> int:
        """The beat that is kept; 0 where none is."""
        record = self._nodes.get(incarnation)
        return 0 if record is None else record.beat


class MemoryPresence:
    """`storage.shared.PresenceStore`; `now` is a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._until: dict[str, float] = {}
        self._here: dict[str, set[int]] = {}

    async def keep_alive(self, incarnation: str, ttl_ms: int) -> bool:
        await trio.lowlevel.checkpoint()
        lived = self._lives(incarnation)
        self._until[incarnation] = self._now() + ttl_ms / 1000
        return lived

    async def update(self, incarnation: str, *, here: Iterable[int], gone: Iterable[int]) -> None:
        await trio.lowlevel.checkpoint()
        users = self._here.setdefault(incarnation, set())
        users.update(here)
        users.difference_update(gone)

    async def online(self, users: Iterable[int]) -> set[int]:
        await trio.lowlevel.checkpoint()
        asked = set(users)
        return {
            user
            for incarnation, here in self._here.items()
            if self._lives(incarnation)
            for user in here & asked
        }

    async def forget(self, incarnation: str) -> None:
        await trio.lowlevel.checkpoint()
        self._until.pop(incarnation, None)
        self._here.pop(incarnation, None)

    def lose_all(self) -> None:
        """What a `FLUSHALL` does, for tests."""
        self._until.clear()
        self._here.clear()

    def _lives(self, incarnation: str) -> bool:
        return self._until.get(incarnation, 0.0) > self._now()


class MemoryNetwork:
    """The inboxes of all nodes; `bus` makes a node's end of it."""

    def __init__(self) -> None:
        self._inboxes: dict[str, MemoryBus] = {}

    def bus(self, inbox: str) -> MemoryBus:
        """The end of the node with this inbox; an earlier one of that name gets nothing more."""
        self._inboxes[inbox] = made = MemoryBus(self, inbox)
        return made

    def leave(self, inbox: str) -> None:
        """The node is gone: what is sent to it is lost."""
        self._inboxes.pop(inbox, None)

    def deliver(self, to: str, data: bytes) -> bool:
        """Put a message into an inbox. False: it is full, or there is none of that name."""
        inbox = self._inboxes.get(to)
        return inbox is not None and inbox.accept(data)


class MemoryBus:
    """`storage.shared.Bus`. One task at a time may `receive`."""

    def __init__(self, network: MemoryNetwork, inbox: str) -> None:
        self.inbox = inbox
        self._network = network
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._arrival = trio.Event()

    def send(self, to: str, data: bytes) -> bool:
        return self._network.deliver(to, data)

    async def receive(self) -> list[bytes]:
        # Waits even when something is here: whoever receives in a loop must let others run.
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            self._arrival = trio.Event()
            await self._arrival.wait()
        taken, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return taken

    def accept(self, data: bytes) -> bool:
        """From the network: a message for this end. False if there is no room for it."""
        if self._waiting_bytes + len(data) > INBOX_MAX_BYTES:
            return False
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        self._arrival.set()
        return True


class MemoryEphemeral:
    """`storage.shared.Ephemeral`; `now` is a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._full_at: dict[tuple[str, str], float] = {}
        """By bucket, when (in ms) it will have gained all that was taken from it."""
        self._codes: dict[str, tuple[str, float, int]] = {}
        """By name: the code, until when (in ms) it is good, and the tries that are left."""
        self._sweep_at = SWEEP_MIN_ENTRIES
        self._cluster = ""

    async def claim(self, cluster: str) -> str:
        await trio.lowlevel.checkpoint()
        self._cluster = self._cluster or cluster
        return self._cluster

    def lose_all(self) -> None:
        """What a `FLUSHALL` does, for tests."""
        self._full_at.clear()
        self._codes.clear()
        self._cluster = ""

    async def wait_ms(self, what: str, who: str, *, per_minute: int) -> int:
        await trio.lowlevel.checkpoint()
        now = self._now() * 1000
        full_at = max(self._full_at.get((what, who), 0.0), now) + _MINUTE_MS / per_minute
        if (wait := full_at - now - _MINUTE_MS) > 0:
            return ceil(wait)
        self._full_at[what, who] = full_at
        self._sweep(now)
        return 0

    async def put_code(self, name: str, code: str, *, ttl_ms: int, tries: int) -> None:
        await trio.lowlevel.checkpoint()
        now = self._now() * 1000
        self._codes[name] = (code, now + ttl_ms, tries)
        self._sweep(now)

    async def try_code(self, name: str, code: str) -> bool:
        await trio.lowlevel.checkpoint()
        kept, until, tries = self._codes.pop(name, ("", 0.0, 0))
        if until <= self._now() * 1000:
            return False
        if kept == code:
            return True
        if tries > 1:
            self._codes[name] = (kept, until, tries - 1)
        return False

    def _sweep(self, now: float) -> None:
        if len(self._full_at) + len(self._codes) < self._sweep_at:
            return
        self._full_at = {key: at for key, at in self._full_at.items() if at > now}
        self._codes = {name: code for name, code in self._codes.items() if code[1] > now}
        self._sweep_at = max(SWEEP_MIN_ENTRIES, 2 * (len(self._full_at) + len(self._codes)))
