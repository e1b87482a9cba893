"""The bus between simulated nodes: ordered by pair, and without any promise.

It may lose single messages, all between two nodes, or all of them for a while; what it carries it
carries late. A node that stands still finds everything in its inbox when it goes on.
"""

from __future__ import annotations

import random

import trio

from actors.parking import Parking
from tests.simulation.scheduling import Outside

DELAY_S = 0.002
"""A usual way; three times that at most."""
DELAYED_S = 1.5
"""The longest way on a bad day."""
OUTAGE_TOLD = 0.5
"""The share of losses that the sender is told of."""


class Network:
    """`lossy` and `delayed` are shares of messages; `away` loses all; `cut` are pairs of nodes."""

    def __init__(self, rng: random.Random, outside: Outside) -> None:
        self._rng = rng
        self._outside = outside
        self.lossy = 0.0
        self.delayed = 0.0
        self.away = False
        self.cut: set[tuple[str, str]] = set()
        self.sent = 0
        self.lost = 0
        self._inboxes: dict[str, SimulatedBus] = {}
        self._held: list[tuple[str, bytes]] | None = None
        self._arrival: dict[tuple[str, str], float] = {}

    def clear(self) -> None:
        self.lossy = self.delayed = 0.0
        self.away = False
        self.cut.clear()
        self.go_on()

    def stand_still(self) -> None:
        """SIGSTOP of the bus: what it is given waits, in its order."""
        if self._held is None:
            self._held = []

    def go_on(self) -> None:
        """SIGCONT."""
        held, self._held = self._held, None
        for to, data in held or ():
            self._arrive(to, data)

    def bus(self, inbox: str) -> SimulatedBus:
        """A node's end."""
        made = self._inboxes[inbox] = SimulatedBus(self, inbox)
        return made

    def leave(self, inbox: str) -> None:
        """The node is gone."""
        self._inboxes.pop(inbox, None)

    def send(self, sender: str, to: str, data: bytes) -> bool:
        self.sent += 1
        if sender not in self._inboxes:
            return True  # the last step of a node that is dead
        cut = self.away or (sender, to) in self.cut
        if cut or self._rng.random() < self.lossy:
            self.lost += 1
            return self._rng.random() >= OUTAGE_TOLD
        now = trio.current_time()
        way = self._rng.uniform(1, 3) * DELAY_S
        if self._rng.random() < self.delayed:
            way = self._rng.uniform(0, DELAYED_S)
        pair = (sender, to)
        at = self._arrival[pair] = max(now + way, self._arrival.get(pair, 0.0) + 1e-6)
        self._outside.start(self._carry, to, at, bytes(data))
        return True

    async def _carry(self, to: str, at: float, data: bytes) -> None:
        await trio.sleep_until(at)
        if self._held is None:
            self._arrive(to, data)
        else:
            self._held.append((to, data))

    def _arrive(self, to: str, data: bytes) -> None:
        inbox = self._inboxes.get(to)
        if inbox is not None:
            inbox.arrive(data)


class SimulatedBus:
    """`storage.shared.Bus`."""

    def __init__(self, network: Network, inbox: str) -> None:
        self._network = network
        self.inbox = inbox
        self._waiting: list[bytes] = []
        self._parking = Parking()

    def send(self, to: str, data: bytes) -> bool:
        return self._network.send(self.inbox, to, data)

    async def receive(self) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            await self._parking.park()
        taken, self._waiting = self._waiting, []
        return taken

    def arrive(self, data: bytes) -> None:
        self._waiting.append(data)
        self._parking.unpark()
