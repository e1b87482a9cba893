"""The faults, by name: each does something bad to a process, for a while, and is over."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import trio

from tests.faults.cluster.machines import LEASE_MS, Machines, down, drained, up
from tests.helpers.servers import STOP_TIMEOUT_S, Server
from tests.histories.record import Record

AT_ONCE = 3
"""Faults that last at the same time; the next waits."""
APART_MIN_S, APART_MAX_S = 1.0, 4.0
"""From the beginning of a fault to that of the next."""
WAIT_S = 0.1


@dataclass
class Fault:
    """One that has begun. Times are the record's, in seconds; `ended` is when all is up again."""

    kind: str
    begun: float
    targets: Sequence[Server] = ()
    ended: float = 0.0
    unavailable: int = 0
    """Errors that said so, in its time."""
    alone: bool = False
    """Nothing else was wrong in its time, nor shortly before it."""


@dataclass
class Harm:
    """What there is to harm, and what was done to it."""

    machines: Machines
    record: Record
    rng: Random
    faults: list[Fault] = field(default_factory=list)
    _under_way: list[Fault] = field(default_factory=list)
    _deck: list[str] = field(default_factory=list)
    _dealt: bool = False

    async def rage(
        self,
        count: int,
        kinds: Sequence[str],
        *,
        told: Callable[[Fault], None],
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        """So many faults, and wait until all are over; `told` is called at each one's beginning.
        When it is `enough`, no more begin."""
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                if enough():
                    break
                kind, targets = await self._next(kinds)
                fault = self._begin(kind, targets)
                told(fault)
                nursery.start_soon(self._run, fault)
                await trio.sleep(self.rng.uniform(APART_MIN_S, APART_MAX_S))

    async def alone(self, kind: str) -> Fault:
        """One fault, and wait until it is over."""
        fault = self._begin(kind, FAULTS[kind].targets(self))
        fault.alone = True
        await self._run(fault)
        return fault

    async def _next(self, kinds: Sequence[str]) -> tuple[str, list[Server]]:
        """A kind whose targets are well: one of each first, then by shares, as in a deck."""
        while True:
            if len(self._under_way) < AT_ONCE:
                if not self._deck:
                    self._deal(kinds)
                busy = {server.name for fault in self._under_way for server in fault.targets}
                for kind in self._deck:
                    targets = FAULTS[kind].targets(self)
                    if not busy & {server.name for server in targets}:
                        self._deck.remove(kind)
                        return kind, targets
            await trio.sleep(WAIT_S)

    def _deal(self, kinds: Sequence[str]) -> None:
        shares = {kind: FAULTS[kind].share if self._dealt else 1 for kind in kinds}
        self._dealt = True
        self._deck = [kind for kind, share in shares.items() for _ in range(share)]
        self.rng.shuffle(self._deck)

    def _begin(self, kind: str, targets: Sequence[Server]) -> Fault:
        fault = Fault(kind, self.record.now(), targets)
        self.faults.append(fault)
        self._under_way.append(fault)
        return fault

    async def _run(self, fault: Fault) -> None:
        before = self.record.counts.get("error unavailable", 0)
        self.record.note(f"fault: {fault.kind} of {[server.name for server in fault.targets]}")
        await FAULTS[fault.kind].happen(self, fault)
        self._under_way.remove(fault)
        fault.ended = self.record.now()
        fault.unavailable = self.record.counts.get("error unavailable", 0) - before
        self.record.note(f"over: {fault.kind}")

    # What faults are made of

    async def kill(self, server: Server, away_s: float) -> None:
        """`kill -9`; it is up again when this returns."""
        await down(server)
        await trio.sleep(away_s)
        await up(server)

    async def pause(self, server: Server, seconds: float) -> None:
        """SIGSTOP, and after so long SIGCONT."""
        with _paused(server):
            await trio.sleep(seconds)

    async def drain(self, node: Server) -> None:
        """SIGTERM, and start it again when it has ended."""
        began = trio.current_time()
        await drained(node)
        took = trio.current_time() - began
        if took >= STOP_TIMEOUT_S:
            self.record.wrong(f"{node.name} did not drain within {took:.1f} s, and was killed")
        await up(node)


@contextlib.contextmanager
def _paused(server: Server) -> Iterator[None]:
    server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal(signal.SIGCONT)


def _some_node(harm: Harm) -> list[Server]:
    return [harm.rng.choice(harm.machines.nodes)]


def _all_nodes(harm: Harm) -> list[Server]:
    nodes: list[Server] = list(harm.machines.nodes)
    harm.rng.shuffle(nodes)
    return nodes


def _some_store(harm: Harm) -> list[Server]:
    """The first is harmed; no other one at the same time, as it should be in production."""
    nodes: list[Server] = list(harm.machines.cassandra.nodes)
    harm.rng.shuffle(nodes)
    return nodes


def _redis(harm: Harm) -> list[Server]:
    return [harm.machines.redis]


async def node_killed(harm: Harm, fault: Fault) -> None:
    await harm.kill(fault.targets[0], harm.rng.uniform(0, 1.5 * LEASE_MS / 1000))


async def node_paused(harm: Harm, fault: Fault) -> None:
    await harm.pause(fault.targets[0], LEASE_MS / 1000 + harm.rng.uniform(0.2, 3.0))


async def node_hiccups(harm: Harm, fault: Fault) -> None:
    await harm.pause(fault.targets[0], harm.rng.uniform(0.3, 1.0) * LEASE_MS / 1000)


async def node_drained(harm: Harm, fault: Fault) -> None:
    await harm.drain(fault.targets[0])


async def rolling_restart(harm: Harm, fault: Fault) -> None:
    for node in fault.targets:
        await harm.drain(node)


async def redis_killed(harm: Harm, fault: Fault) -> None:
    await harm.kill(fault.targets[0], harm.rng.uniform(0, 3.0))


async def redis_flushed(harm: Harm, fault: Fault) -> None:
    await trio.to_thread.run_sync(_flush, harm.machines.redis.port)


async def redis_paused(harm: Harm, fault: Fault) -> None:
    await harm.pause(fault.targets[0], harm.rng.uniform(0.5, 6.0))


async def cassandra_killed(harm: Harm, fault: Fault) -> None:
    await harm.kill(fault.targets[0], harm.rng.uniform(0, 2.0))


async def cassandra_paused(harm: Harm, fault: Fault) -> None:
    await harm.pause(fault.targets[0], harm.rng.uniform(0.5, 6.0))


def _flush(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 3) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        answer = connection.recv(64)
    assert answer.startswith(b"+OK"), answer


@dataclass(frozen=True)
class Kind:
    """How a fault is done, to whom, and how many of them are in a deck."""

    happen: Callable[[Harm, Fault], Awaitable[None]]
    targets: Callable[[Harm], list[Server]]
    share: int
    means: str


FAULTS: dict[str, Kind] = {
    "node killed": Kind(node_killed, _some_node, 5, "`kill -9`, started again 0 to 4.5 s later"),
    "node paused": Kind(node_paused, _some_node, 3, "SIGSTOP beyond its lease, then SIGCONT"),
    "node hiccups": Kind(node_hiccups, _some_node, 3, "SIGSTOP for 0.9 to 3 s"),
    "node drained": Kind(node_drained, _some_node, 3, "SIGTERM, its end awaited, started again"),
    "rolling restart": Kind(rolling_restart, _all_nodes, 1, "that, to all three in turn"),
    "Redis killed": Kind(redis_killed, _redis, 3, "`kill -9`, started again 0 to 3 s later"),
    "Redis flushed": Kind(redis_flushed, _redis, 3, "FLUSHALL"),
    "Redis paused": Kind(redis_paused, _redis, 2, "SIGSTOP for 0.5 to 6 s"),
    "Cassandra killed": Kind(
        cassandra_killed, _some_store, 1, "`kill -9` of a node, started again 0 to 2 s later"
    ),
    "Cassandra paused": Kind(cassandra_paused, _some_store, 2, "SIGSTOP of a node, 0.5 to 6 s"),
}
"""By the name that reports give them."""
