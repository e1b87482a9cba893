"""One person's presence: a connection of their own, and a watch over all that comes through it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from broker.client import Client, ConnectionChanged, Message, connect
from broker.client.wakeup import Wakeup
from broker.replay.latency import Latencies
from broker.replay.proof import Ledger, ProofFailed, View

SETTLE_SECONDS = 60.0
"""How long an entry may take to reach a client before the proof counts it as lost."""


@dataclass(slots=True)
class Tally:
    """What is counted over a whole replay."""

    messages: int = 0
    entries: int = 0
    deliveries: int = 0
    reconnects: int = 0
    latencies: Latencies = field(default_factory=Latencies)
    began_at: float = 0.0
    ended_at: float = 0.0

    def begin(self) -> None:
        """The first room begins to speak now; others may follow."""
        self.began_at = self.began_at or time.perf_counter()

    def end(self) -> None:
        """Everybody in a room has everything now."""
        self.ended_at = time.perf_counter()

    @property
    def seconds(self) -> float:
        """From the first message to the last receipt, without what was opened and proved."""
        return max(self.ended_at - self.began_at, 0.0)


@dataclass(slots=True)
class Room:
    """What the persons of one room share. `intended_at[seq - 1]` is when an entry was to be sent,
    by `time.perf_counter`; 0 for those that are no messages."""

    ledger: Ledger
    tally: Tally
    conv: str = ""
    named: trio.Event = field(default_factory=trio.Event)
    """Given when `conv` is known: its first entry may come before the answer that names it."""
    intended_at: list[float] = field(default_factory=list)


class Attendant:
    """A person who is connected. `user` is known, and commands go, through `client`."""

    def __init__(self, room: Room, view: View, client: Client) -> None:
        self.client = client
        self.view = view
        self._room = room
        self._progress = Wakeup()

    async def watch(self) -> None:
        """Check all that comes, until cancelled. Raises `ProofFailed`, `ParleyClientError`."""
        room, tally = self._room, self._room.tally
        async for event in self.client:
            if isinstance(event, Message):
                if not room.conv:
                    await room.named.wait()
                if event.conv != room.conv:
                    continue
                self.view.saw(event)
                tally.deliveries += 1
                if intended := room.intended_at[event.seq - 1]:
                    tally.latencies.add(time.perf_counter() - intended)
                self._progress.set()
            elif isinstance(event, ConnectionChanged) and event.up:
                tally.reconnects += 1

    async def seen(self, seq: int) -> None:
        """Wait until everything up to `seq` has come. Raises `ProofFailed` if it does not."""
        with trio.move_on_after(SETTLE_SECONDS):
            while self.view.last < seq:
                await self._progress.wait()
            return
        raise ProofFailed(
            f"{self.view.name}: saw nothing after seq {self.view.last} "
            f"for {SETTLE_SECONDS:g} s, where the log goes on to {seq}"
        )


@asynccontextmanager
async def attending(room: Room, view: View, url: str, token: str) -> AsyncIterator[Attendant]:
    """A person's connection for the length of the block, watched."""
    async with connect(url, token=token) as client, trio.open_nursery() as nursery:
        attendant = Attendant(room, view, client)
        nursery.start_soon(attendant.watch)
        yield attendant
        nursery.cancel_scope.cancel()
