"""Replays one log through a broker: each person a user with a connection, everything in order.

One thing happens at a time in a room, since the log's order must become the history's order; as
soon as one is acknowledged the next may follow, unless a speed is set. The proof runs along.
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from broker.client import Message
from broker.client.api import new_key
from broker.replay.attendance import Attendant, Room, Tally, attending
from broker.replay.log import Happening, Joined, Left, Log, Renamed, Said
from broker.replay.proof import Expected, Ledger, ProofFailed, View
from broker.wire.limits import HISTORY_MAX_ENTRIES, TITLE_MAX_CHARS

OPENING_AT_ONCE = 16
"""Connections of one room that are opened at the same time."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to replay. `urls` are used in turn; `speed` is times as fast as life, None: as fast as
    acknowledged. `said` is called after each message."""

    urls: Sequence[str]
    speed: float | None
    said: Callable[[], None]


class Replay:
    """One log's replay. `tokens` are of the persons in order, then one of the room's host."""

    def __init__(self, log: Log, tokens: Sequence[str], plan: Plan, tally: Tally) -> None:
        if len(tokens) != len(log.nicks) + 1:
            raise ValueError(f"{log.name} needs {len(log.nicks) + 1} tokens, not {len(tokens)}")
        self._log = log
        self._tokens = tokens
        self._plan = plan
        self._tally = tally
        self._room = Room(Ledger(), tally)
        self._views = [View(f"{log.name}: {nick}", self._room.ledger) for nick in log.nicks]
        self._views.append(View(f"{log.name}: host", self._room.ledger))
        self._there: dict[int, Attendant] = {}
        self._leave: dict[int, trio.Event] = {}
        self._nursery: trio.Nursery | None = None

    @property
    def connections(self) -> int:
        """How many connections it may have open at once."""
        return len(self._tokens)

    async def run(self) -> None:
        """Replay, then prove. Raises `ProofFailed`, `ParleyClientError`."""
        host = len(self._log.nicks)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self._attend, host)
            await self._found(self._there[host])
            await self._open_all(self._log.present)
            for person in self._log.present:
                await self._join(person)
            self._tally.begin()
            began = time.perf_counter()
            for happening in self._log.happenings:
                due = await self._due(began, happening.at_ms)
                await self._do(happening, due)
            await self._prove(self._there[host])
            for leave in self._leave.values():
                leave.set()

    # What happens

    async def _found(self, host: Attendant) -> None:
        user = host.client.user
        seq = self._expect(Expected.system("created", user))
        title = _label(f"Replay of {self._log.name}")
        options = {"visibility": "public", "join": "open", "history": "all"}
        group = await host.client.create_group(title, **options)
        self._views[-1].came(seq)
        self._room.conv = group.conv
        self._room.named.set()
        self._confirm(group.fields, seq)

    async def _due(self, began: float, at_ms: int) -> float:
        """Wait until it is time; when that was or is."""
        if self._plan.speed is None:
            return time.perf_counter()
        due = began + at_ms / 1000 / self._plan.speed
        await trio.sleep(max(0.0, due - time.perf_counter()))
        return due

    async def _do(self, happening: Happening, due: float) -> None:
        person = happening.person
        match happening:
            case Said():
                await self._say(person, happening.kind, happening.body, due)
            case Joined():
                await self._open_all([person])
                await self._join(person)
            case Left():
                await self._go(person)
            case Renamed():
                await self._call(person, happening.nick)

    async def _say(self, person: int, kind: str, body: Any, due: float) -> None:
        speaker = self._there[person].client
        seq = self._expect(Expected(speaker.user, kind, body), due)
        ack = await speaker.send(self._room.conv, body, kind=kind, key=new_key())
        if ack.seq != seq:
            raise ProofFailed(f"{self._log.name}: got seq {ack.seq}, the log has {seq}")
        self._tally.messages += 1
        self._plan.said()

    async def _join(self, person: int) -> None:
        client = self._there[person].client
        seq = self._expect(Expected.system("joined", client.user))
        self._views[person].came(seq)
        self._confirm(await client.join(self._room.conv), seq)

    async def _go(self, person: int) -> None:
        attendant = self._there[person]
        # Who has gone may read no more, so that what is still on its way must come before.
        await attendant.seen(self._room.ledger.head)
        seq = self._expect(Expected.system("left", attendant.client.user))
        self._confirm(await attendant.client.leave(self._room.conv), seq)
        self._views[person].went(seq)
        await attendant.seen(seq)
        del self._there[person]
        self._leave.pop(person).set()

    async def _call(self, person: int, nick: str) -> None:
        await self._there[person].client.command("profile.set", nickname=_label(nick))

    def _expect(self, entry: Expected, due: float = 0.0) -> int:
        self._tally.entries += 1
        self._room.intended_at.append(due)
        return self._room.ledger.write(entry)

    def _confirm(self, answer: Any, seq: int) -> None:
        if answer.get("seq") != seq:
            raise ProofFailed(f"{self._log.name}: got seq {answer.get('seq')}, the log has {seq}")

    # Connections

    async def _open_all(self, persons: Sequence[int]) -> None:
        assert self._nursery is not None
        limit = trio.CapacityLimiter(OPENING_AT_ONCE)

        async def open_one(person: int) -> None:
            async with limit:
                assert self._nursery is not None
                await self._nursery.start(self._attend, person)
            await self._call(person, self._log.nicks[person])

        async with trio.open_nursery() as nursery:
            for person in persons:
                nursery.start_soon(open_one, person)

    async def _attend(self, person: int, task_status: trio.TaskStatus[None]) -> None:
        leave = self._leave[person] = trio.Event()
        url = self._plan.urls[person % len(self._plan.urls)]
        view = self._views[person]
        async with attending(self._room, view, url, self._tokens[person]) as attendant:
            self._there[person] = attendant
            task_status.started()
            await leave.wait()

    # Proof

    async def _prove(self, host: Attendant) -> None:
        head = self._room.ledger.head
        for attendant in self._there.values():
            await attendant.seen(head)
        self._tally.end()
        for view in self._views:
            view.check()
        self._room.ledger.check_history(await self._history(host))

    async def _history(self, host: Attendant) -> list[Message]:
        """The whole log as the broker has it, read back by pages."""
        found: list[Message] = []
        while True:
            after = found[-1].seq if found else 0
            page = await host.client.history(
                self._room.conv, after=after, limit=HISTORY_MAX_ENTRIES
            )
            found += page.entries
            if not page.entries or found[-1].seq >= page.head:
                return found


def _label(text: str) -> str:
    """A nick or title as the broker takes it: visible, and not too long."""
    kept = "".join(c for c in text if unicodedata.category(c) != "Cc").strip()
    return kept[:TITLE_MAX_CHARS] or "?"
