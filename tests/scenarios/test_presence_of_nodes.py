"""Who is online when nodes die and thousands come back at once: right in time, and without a storm.

Clocks jump; the crowd has no sockets, only what a node knows of a connection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.cluster import words as w
from actors.cluster.link import CONTACT_S
from actors.cluster.placement import BEATS_PER_LEASE, LOOKS_PER_LEASE, RETRY_S
from actors.presence import LOOKUP_USERS
from actors.wires import TCP_MSGPACK
from broker.commands.opening import HELLOS_AT_ONCE
from storage.memory import MemoryPresence
from storage.records import User
from tests.actors.cluster.nodes import LEASE_MS, USERS, ClusterNode, Nodes, nodes_of
from tests.helpers.cluster import running_cluster
from tests.helpers.peer import Map, Peer

LEASE_S = LEASE_MS / 1000
NOTICED_S = LEASE_S * (1 + 1 / BEATS_PER_LEASE + 1 / LOOKS_PER_LEASE) + 2 * RETRY_S
"""When the last has found out that a node is dead: its beat stood still for a lease."""
COALESCE_S = 0.1
CROWD = 5_000
WATCHERS = 10
WATCHED_EACH = 1_000


async def told(peer: Peer, user: int) -> bool:
    """The next thing that a watcher hears of a user."""
    while True:
        for state in (await peer.event("presence"))["users"]:
            if state["user"] == user:
                return bool(state["online"])


async def looked_up(peer: Peer, user: int) -> bool:
    (state,) = (await peer.ok("presence.get", users=[user]))["users"]
    return bool(state["online"])


@pytest.mark.parametrize("silent", [True, False], ids=["bus is silent", "bus refuses"])
async def test_the_users_of_a_node_that_dies_are_offline_within_a_lease_and_not_before(
    tmp_path: Path, autojump_clock: MockClock, silent: bool
) -> None:
    """Silent: nobody says that the node's inbox is gone, so that contact has to be lost first."""
    async with running_cluster(
        tmp_path, lease_ms=LEASE_MS, presence__coalesce_ms=int(COALESCE_S * 1000)
    ) as brokers:
        dying, second, third = brokers.members
        bob = await dying.join("bob")
        watcher, looker = await second.join("ann"), await third.join("cy")
        await watcher.ok("presence.watch", users=[bob.user])
        await trio.sleep(LEASE_S)
        assert await looked_up(looker, bob.user)

        await brokers.kill(dying, silent=silent)
        died = trio.current_time()
        offline: dict[str, float] = {}

        async def watch() -> None:
            assert not await told(watcher, bob.user)
            offline["watched"] = trio.current_time() - died

        async def look() -> None:
            while await looked_up(looker, bob.user):  # noqa: ASYNC110 - only asking tells
                await trio.sleep(0.05)
            offline["looked up"] = trio.current_time() - died

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                nursery.start_soon(look)
        noticed = max(NOTICED_S, CONTACT_S + LEASE_S / LOOKS_PER_LEASE + RETRY_S)
        assert offline["watched"] >= LEASE_S * (1 - 1 / BEATS_PER_LEASE)
        assert offline["watched"] <= (noticed if silent else NOTICED_S) + 1.1 * COALESCE_S + 0.1
        assert LEASE_S / 2 - 0.1 <= offline["looked up"] <= LEASE_S + 0.1
        # It is back: at another node.
        again = await third.join("bob")
        assert await told(watcher, again.user)
        assert await looked_up(looker, again.user)


async def test_who_comes_back_before_the_death_is_noticed_was_never_away(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_cluster(
        tmp_path, lease_ms=LEASE_MS, presence__coalesce_ms=int(COALESCE_S * 1000)
    ) as brokers:
        dying, second, third = brokers.members
        bob = await dying.join("bob")
        watcher = await second.join("ann")
        await watcher.ok("presence.watch", users=[bob.user])
        await brokers.kill(dying)
        back = await third.join("bob")
        await trio.sleep(3 * LEASE_S)
        await watcher.ok("ping")
        states = [state for event in watcher.events for state in event["users"]]
        assert all(state["online"] for state in states)
        assert len(states) <= 2, "that they came, and that they are still there"
        assert await looked_up(watcher, back.user)


class Seat:
    """What a node knows of a connection that nobody writes to."""

    def __init__(self, user: int) -> None:
        self.user = user
        self.closing = False
        self.behind = None
        self.wire = TCP_MSGPACK
        self.session: Any = None
        self.number = user


class CountingPresence(MemoryPresence):
    updates = 0
    users = 0

    async def update(self, incarnation: str, *, here: Iterable[int], gone: Iterable[int]) -> None:
        here, gone = list(here), list(gone)
        self.updates += 1
        self.users += len(here) + len(gone)
        await super().update(incarnation, here=here, gone=gone)


class Crowd:
    """Users without sockets, and some real clients who watch them all."""

    def __init__(self, nodes: Nodes, watching: ClusterNode) -> None:
        self.nodes = nodes
        self.users = range(USERS + 1, USERS + 1 + CROWD)
        self.seats: dict[int, Seat] = {}
        self.events: list[Map] = []
        self._watching = watching
        self._watchers: list[Peer] = []

    async def watch(self) -> None:
        accounts = [User(id=0, name=f"crowd{n}") for n in self.users]
        await self.nodes.store.create_users(accounts, [None] * CROWD)
        for number in range(WATCHERS):
            peer = await self._watching.join(number + 1)
            start = number * WATCHED_EACH % CROWD
            for part in range(start, start + WATCHED_EACH, 500):
                await peer.ok("presence.watch", users=list(self.users[part : part + 500]))
            peer.events.clear()
            self._watchers.append(peer)
            self.nodes.nursery.start_soon(self._listen, peer)

    async def _listen(self, peer: Peer) -> None:
        while True:
            self.events.append(await peer.event("presence"))

    async def come(self, n: ClusterNode) -> float:
        """All at once, as `Opening` lets them in; how long it took."""
        started = trio.current_time()
        for first in range(0, CROWD, HELLOS_AT_ONCE):
            some = self.users[first : first + HELLOS_AT_ONCE]
            await n.cluster.here.announce(dict.fromkeys(some, False))
            for user in some:
                seat: Any = Seat(user)
                seat.session = n.node.registry.attach(seat, user, hidden=False)
                self.seats[user] = seat
        return trio.current_time() - started

    def go(self, n: ClusterNode) -> None:
        """All at once, in order."""
        for seat in self.seats.values():
            n.node.registry.detach(seat)  # type: ignore[arg-type]

    def begin(self) -> None:
        """Count from here on."""
        self.events.clear()
        self.nodes.network.carried.clear()
        presence = self.nodes.presence
        assert isinstance(presence, CountingPresence)
        presence.updates = presence.users = 0

    def told(self) -> tuple[Counter[int], Counter[int], int]:
        """How often each user was told to be online, and offline; and in how many events."""
        online: Counter[int] = Counter()
        offline: Counter[int] = Counter()
        for event in self.events:
            for state in event["users"]:
                (online if state["online"] else offline)[state["user"]] += 1
        return online, offline, len(self.events)

    def envelopes(self) -> tuple[int, Counter[str]]:
        """How many had words about users, and what these were."""
        about: Counter[str] = Counter()
        count = 0
        for envelope in self.nodes.network.carried:
            words = [x for x in envelope.words if isinstance(x, (w.Here, w.Gone, w.Start))]
            count += bool(words)
            about.update(type(x).__name__ for x in words)
        return count, about


EVENTS_MAX = WATCHERS * (WATCHED_EACH // LOOKUP_USERS + 2)
"""Of one change of all: one event tells a watcher of up to `LOOKUP_USERS`."""
WATCHED_BY = WATCHERS * WATCHED_EACH // CROWD


async def test_a_crowd_comes_and_goes_without_a_storm(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2", "n3", presence_coalesce_ms=100) as nodes:
        await counted(nodes)
        n1, n2, n3 = nodes.running
        crowd = Crowd(nodes, n3)
        await crowd.watch()

        crowd.begin()
        took = await crowd.come(n1)
        await trio.sleep(1.0)
        online, offline, events = crowd.told()
        assert took < 1.0
        assert online == dict.fromkeys(crowd.users, WATCHED_BY), "each told once to each watcher"
        assert not offline
        assert events <= EVENTS_MAX
        batches = -(-CROWD // HELLOS_AT_ONCE)
        envelopes, about = crowd.envelopes()
        assert about == {"Here": 2 * batches}, "one word for a batch of hellos, to each node"
        assert envelopes <= 2 * batches
        assert nodes.presence.updates <= batches + 1  # type: ignore[attr-defined]
        assert nodes.presence.users == CROWD, "each once"  # type: ignore[attr-defined]
        assert len(n2.node.registry.elsewhere) == CROWD + WATCHERS

        crowd.begin()
        crowd.go(n1)
        await trio.sleep(1.0)
        online, offline, events = crowd.told()
        assert offline == dict.fromkeys(crowd.users, WATCHED_BY)
        assert not online
        assert events <= EVENTS_MAX
        envelopes, about = crowd.envelopes()
        assert about == {"Gone": 2 * CROWD}
        assert envelopes <= 4, "they go together"
        assert nodes.presence.updates <= 2  # type: ignore[attr-defined]
        assert await nodes.presence.online(crowd.users) == set()


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "after the death is noticed"])
async def test_a_crowd_whose_node_died_comes_back_to_another_without_a_storm(
    autojump_clock: MockClock, at_once: bool
) -> None:
    async with nodes_of("n1", "n2", "n3", presence_coalesce_ms=100) as nodes:
        await counted(nodes)
        n1, n2, n3 = nodes.running
        crowd = Crowd(nodes, n3)
        await crowd.watch()
        await crowd.come(n1)
        await trio.sleep(1.0)

        crowd.begin()
        # A bus that says nothing of an inbox that is gone: the worst case.
        n1.scope.cancel()
        nodes.running.remove(n1)
        if not at_once:
            await trio.sleep(2 * NOTICED_S)
        took = await crowd.come(n2)
        await trio.sleep(3 * LEASE_S)

        online, offline, events = crowd.told()
        envelopes, about = crowd.envelopes()
        assert await nodes.presence.online(crowd.users) == set(crowd.users)
        assert all(map(n3.node.registry.seems_online, crowd.users))
        assert len(n3.node.registry.elsewhere) == CROWD, "nothing of the dead is left"
        if at_once:
            assert took <= CONTACT_S + 0.5, "waits for the dead only while it may be alive"
            assert not offline, "who comes back before the death is noticed was never away"
            assert set(online.values()) <= {WATCHED_BY, 2 * WATCHED_BY}
            assert events <= 3 * EVENTS_MAX
        else:
            assert took < 1.0
            assert offline == online == dict.fromkeys(crowd.users, WATCHED_BY)
            assert events <= 2 * EVENTS_MAX
        assert about["Here"] <= 2 * -(-CROWD // HELLOS_AT_ONCE)
        assert nodes.presence.updates <= 40  # type: ignore[attr-defined]
        states = online.total() + offline.total()
        when = "at once" if at_once else "later"
        updates = nodes.presence.updates  # type: ignore[attr-defined]
        print(
            f"\n{when}: {took:.2f} s for {CROWD} users; {events} events with {states} states for"
            f" {WATCHERS} watchers; {about.total()} words about users in {envelopes} envelopes;"
            f" {updates} updates"
        )


async def counted(nodes: Nodes) -> None:
    """Have the presence store count what it is told."""
    nodes.presence = CountingPresence(trio.current_time)
    for n in nodes.running:
        n.cluster.here._store = nodes.presence
    await trio.sleep(2.0)
