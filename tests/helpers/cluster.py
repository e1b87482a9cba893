"""Whole brokers in the test's own trio loop that are one cluster: what they share is in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import trio

from actors.cluster.cluster import Cluster
from actors.node import Node
from broker.app import node_of, serve
from broker.running import Running
from storage.interfaces import Store
from storage.memory import (
    MemoryEphemeral,
    MemoryLeases,
    MemoryNetwork,
    MemoryPresence,
    MemoryStore,
)
from storage.names import SLOTS, slot_of
from tests.helpers.broker import OPERATOR, SECRET, Broker, config_with
from tests.helpers.links import in_step
from tests.helpers.peer import Peer

LOOK_AGAIN_S = 0.01
SETTLE_S = 30.0
"""Far more than nodes need to agree on who owns what."""


class Member(Broker):
    """One broker of the cluster."""

    scope: trio.CancelScope
    done: trio.Event

    @property
    def cluster(self) -> Cluster:
        assert self.node.cluster is not None
        return self.node.cluster

    def owns(self, conv: str) -> bool:
        """Whether it takes new commands for this conversation."""
        return self.cluster.placement.epoch_of(slot_of(conv)) > 0


@dataclass
class Brokers:
    """All of them; `members` are those that run, in the order of their start."""

    data: Path
    nursery: trio.Nursery
    settings: dict[str, Any]
    store: Store
    lease_ms: int = 2_000
    leases: MemoryLeases = field(default_factory=MemoryLeases)
    network: MemoryNetwork = field(default_factory=MemoryNetwork)
    presence: MemoryPresence = field(default_factory=lambda: MemoryPresence(trio.current_time))
    ephemeral: MemoryEphemeral = field(default_factory=lambda: MemoryEphemeral(trio.current_time))
    members: list[Member] = field(default_factory=list)
    _starts: int = 0

    def __getitem__(self, index: int) -> Member:
        return self.members[index]

    async def start(self) -> Member:
        """One more; it has seen the others when this returns."""
        self._starts += 1
        name, inbox = f"n{self._starts}", f"in{self._starts}"
        config = config_with(self.data, self.settings)
        node = node_of(config, self.store)
        node.name = name
        node.cluster = Cluster(
            node,
            name=name,
            inbox=inbox,
            leases=self.leases,
            bus=self.network.bus(inbox),
            presence=self.presence,
            lease_ms=self.lease_ms,
        )
        scope, done = trio.CancelScope(), trio.Event()
        serving = partial(serve, config, node, SECRET, OPERATOR, ephemeral=self.ephemeral)
        running: Running = await self.nursery.start(_live, serving, scope, done)
        made = Member(config, node, running, self.nursery)
        made.scope, made.done = scope, done
        if self.members:
            made.users = self.members[0].users
        self.members.append(made)
        return made

    async def kill(self, member: Member, *, silent: bool = False) -> None:
        """No drain, no goodbye; what is on its way to it is lost, with or without (`silent`) a
        notice to those who send it."""
        if not silent:
            self.network.leave(member.cluster.inbox)
        # What it says as its tasks end, a process that is killed would not have said.
        member.cluster.bus.send = lambda to, data: True  # type: ignore[method-assign]
        member.scope.cancel()
        await member.done.wait()
        self.members.remove(member)

    async def drain(self, member: Member) -> None:
        """SIGTERM, and wait for its end."""
        self.members.remove(member)
        member.running.stop()
        await member.done.wait()
        self.network.leave(member.cluster.inbox)

    async def settled(self) -> None:
        """Wait until every slot has its owner, and everybody hears everybody."""
        with trio.fail_after(SETTLE_S):
            while not self._settled():  # noqa: ASYNC110 - only the nodes know, each for itself
                await trio.sleep(LOOK_AGAIN_S)

    def _settled(self) -> bool:
        owned: set[int] = set()
        count = 0
        names = {member.cluster.placement.me.incarnation for member in self.members}
        for member in self.members:
            placement = member.cluster.placement
            if placement.seen.keys() != names or not in_step(member.cluster):
                return False
            if len(member.cluster.peers) != len(names) - 1:
                return False
            if any(
                placement.preferred(slot) != placement.me.incarnation for slot in placement.owned
            ):
                return False
            owned.update(placement.owned)
            count += len(placement.owned)
        return count == len(owned) == SLOTS

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what comes about by itself."""
        with trio.fail_after(SETTLE_S):
            while not condition():  # noqa: ASYNC110 - as above
                await trio.sleep(LOOK_AGAIN_S)

    def owner(self, conv: str) -> Member:
        """Who writes this conversation now."""
        (owner,) = [member for member in self.members if member.owns(conv)]
        return owner


class AnyBroker(Broker):
    """The cluster as one broker: each new connection is made to the next node."""

    brokers: Brokers

    @property
    def nodes(self) -> list[Node]:
        return [member.node for member in self.brokers.members]

    async def tcp(self) -> Peer:
        return await Broker.tcp(next(self._doors))

    async def ws(self, subprotocol: str | None = "parley.msgpack.v1") -> Peer:
        return await Broker.ws(next(self._doors), subprotocol)

    def over(self, brokers: Brokers) -> AnyBroker:
        """Of these."""
        self.brokers = brokers
        self._doors = cycle(brokers.members)
        return self


async def _live(
    serving: Callable[..., Any],
    scope: trio.CancelScope,
    done: trio.Event,
    *,
    task_status: trio.TaskStatus[Running],
) -> None:
    try:
        with scope:
            await serving(task_status=task_status)
    finally:
        done.set()


@asynccontextmanager
async def running_cluster(
    data: Path,
    *,
    nodes: int = 3,
    lease_ms: int = 2_000,
    store: Store | None = None,
    **settings: Any,
) -> AsyncIterator[Brokers]:
    """So many brokers with `settings` (dots written as double underscores), each with its slots."""
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    async with trio.open_nursery() as nursery:
        kept = MemoryStore() if store is None else store
        brokers = Brokers(data, nursery, dotted, kept, lease_ms)
        async with trio.open_nursery() as starting:
            for _ in range(nodes):
                starting.start_soon(brokers.start)
        await brokers.settled()
        yield brokers
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def any_of_a_cluster(data: Path, *, nodes: int = 3, **settings: Any) -> AsyncIterator[Broker]:
    """A cluster, for tests that were written for one broker and should not notice."""
    async with running_cluster(data, nodes=nodes, **settings) as brokers:
        first = brokers[0]
        yield AnyBroker(first.config, first.node, first.running, first.nursery).over(brokers)
