"""Who is connected where: all nodes know before a session opens, and the store is kept told."""

from __future__ import annotations

from collections.abc import Iterable

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.cluster import words as w
from actors.cluster.here import ANNOUNCE_TIMEOUT_S, KEEP_ALIVE_PERIOD_S
from storage.errors import Unavailable
from storage.memory import MemoryPresence
from tests.actors.cluster.nodes import (
    LEASE_MS,
    ClusterNode,
    nodes_of,
    nothing_more,
    one_node,
    send,
    seqs,
)
from tests.helpers.links import in_step


class Weather(MemoryPresence):
    """A presence store that may be away, and counts what it is told."""

    def __init__(self, n: ClusterNode) -> None:
        super().__init__(trio.current_time)
        self.away = False
        self.updates: list[tuple[set[int], set[int]]] = []
        n.cluster.here._store = self

    async def update(self, incarnation: str, *, here: Iterable[int], gone: Iterable[int]) -> None:
        if self.away:
            raise Unavailable("away")
        here, gone = set(here), set(gone)
        self.updates.append((here, gone))
        await super().update(incarnation, here=here, gone=gone)

    async def keep_alive(self, incarnation: str, ttl_ms: int) -> bool:
        if self.away:
            raise Unavailable("away")
        return await super().keep_alive(incarnation, ttl_ms)


async def test_when_a_session_opens_every_node_and_the_store_know_of_it() -> None:
    async with nodes_of("n1", "n2", "n3") as nodes:
        n1, n2, n3 = nodes.running
        await n1.cluster.here.announce({5: False, 6: True})
        for other in (n2, n3):
            assert other.peer(n1).users == {5: False, 6: True}
            assert other.node.registry.online(5)
            assert other.node.registry.seems_online(5)
            assert not other.node.registry.seems_online(6)
        assert await nodes.presence.online([4, 5, 6]) == {5, 6}


async def test_who_does_not_come_after_all_takes_nobody_with_them(
    autojump_clock: MockClock,
) -> None:
    """Two clients of a user say hello; one is gone before its session could open."""
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        here = n1.cluster.here
        await here.announce({5: False})
        nodes.network.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.announce, {5: False})
            await wait_all_tasks_blocked()
            here.withdraw([5])
            nodes.network.release()
        assert not nodes.network.words(w.Gone), "the other is about to open"
        assert n2.node.registry.online(5)
        here.withdraw([5])
        await wait_all_tasks_blocked()
        assert not n2.node.registry.online(5)


async def test_a_session_that_ends_as_another_opens_does_not_take_the_user_away(
    autojump_clock: MockClock,
) -> None:
    """Else that other would be open, and no node know of it."""
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        connection, _ = await n1.join_connection(5)
        nodes.network.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(n1.cluster.here.announce, {5: False})
            await wait_all_tasks_blocked()
            connection.cut()
            await wait_all_tasks_blocked()
            assert 5 not in n1.node.registry.sessions
            nodes.network.release()
        assert not nodes.network.words(w.Gone)
        assert n2.node.registry.online(5)


async def test_a_user_who_is_here_already_is_not_news() -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, _ = nodes.running
        await n1.cluster.here.announce({5: False})
        nodes.network.carried.clear()
        await n1.cluster.here.announce({5: False})
        assert not nodes.network.words(w.Here)


async def test_nothing_that_is_said_after_a_session_opened_passes_it_by() -> None:
    """The owner is another node than both: it may hear of them in any order."""
    async with nodes_of("n1", "n2", "n3") as nodes:
        n1, n2, n3 = nodes.running
        conv = n3.conv()
        other = int(conv.rpartition("/")[2])
        ann = await n1.join(1)
        bob = await n2.join(other)
        await send(ann, conv, "a")
        assert await seqs(bob, 1) == [1]


async def test_a_node_out_of_reach_keeps_nobody_out_for_long(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        nodes.network.part(n1.inbox, n2.inbox)
        started = trio.current_time()
        await n1.cluster.here.announce({5: False})
        assert trio.current_time() - started <= ANNOUNCE_TIMEOUT_S
        await nodes.until(lambda: not in_step(n1.cluster))
        started = trio.current_time()
        await n1.cluster.here.announce({6: False})
        assert trio.current_time() - started < 0.1, "it is out of contact: nobody waits"


async def test_a_presence_store_that_is_away_keeps_nobody_out_for_long(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1") as nodes:
        (n1,) = nodes.running
        weather = Weather(n1)
        weather.away = True
        started = trio.current_time()
        await n1.cluster.here.announce({5: False})
        assert trio.current_time() - started <= ANNOUNCE_TIMEOUT_S
        weather.away = False
        await trio.sleep(2 * KEEP_ALIVE_PERIOD_S)
        assert await weather.online([5]) == {5}, "told when it is back"


async def test_what_the_store_has_lost_is_told_again(autojump_clock: MockClock) -> None:
    async with nodes_of("n1") as nodes:
        (n1,) = nodes.running
        await n1.cluster.here.announce({5: False, 6: False})
        nodes.presence.lose_all()
        await trio.sleep(1.5 * KEEP_ALIVE_PERIOD_S)
        assert await nodes.presence.online([5, 6]) == {5, 6}


async def test_with_the_shortest_lease_the_store_still_has_lost_nothing(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of() as nodes:
        n1 = nodes.start("n1", lease_ms=1_000)
        await nodes.settled()
        weather = Weather(n1)
        await n1.cluster.here.announce({5: False})
        await trio.sleep(1)
        weather.updates.clear()
        await trio.sleep(10)
        assert await weather.online([5]) == {5}
        assert not weather.updates, "nothing had to be told again"


async def test_who_comes_and_goes_while_the_store_is_away_is_told_as_it_ends(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1") as nodes:
        (n1,) = nodes.running
        weather = Weather(n1)
        here = n1.cluster.here
        await here.announce({5: False})
        weather.away = True
        for _ in range(10):
            here.departed(5)
            here.arrived({5: False})
        here.arrived({6: False})
        here.departed(6)
        weather.away = False
        weather.updates.clear()
        await trio.sleep(3 * KEEP_ALIVE_PERIOD_S)
        assert await weather.online([5, 6]) == {5}
        assert len(weather.updates) <= 2


async def test_many_who_come_at_once_are_told_together(autojump_clock: MockClock) -> None:
    async with nodes_of("n1") as nodes:
        (n1,) = nodes.running
        weather = Weather(n1)
        await trio.sleep(2 * KEEP_ALIVE_PERIOD_S)
        weather.updates.clear()
        async with trio.open_nursery() as nursery:
            for user in range(1, 501):
                nursery.start_soon(n1.cluster.here.announce, {user: False})
        assert await weather.online(range(1, 501)) == set(range(1, 501))
        assert len(weather.updates) <= 5


async def test_who_leaves_a_node_is_gone_there_and_not_elsewhere() -> None:
    async with nodes_of("n1", "n2", "n3") as nodes:
        n1, n2, n3 = nodes.running
        for n in (n1, n2):
            await n.cluster.here.announce({5: False})
        n1.cluster.here.departed(5)
        n1.cluster.here.departed(5)
        await wait_all_tasks_blocked(0.003)
        assert n3.node.registry.online(5)
        n2.cluster.here.departed(5)
        await wait_all_tasks_blocked(0.003)
        assert not n3.node.registry.online(5)
        assert not n3.node.registry.elsewhere
        assert await nodes.presence.online([5]) == set()


async def test_who_begins_to_hide_is_hidden_everywhere() -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        await n1.cluster.here.announce({5: False})
        n1.cluster.here.hide(5, True)
        await wait_all_tasks_blocked(0.003)
        assert n2.node.registry.online(5)
        assert not n2.node.registry.seems_online(5)
        assert n1.cluster.here.all() == ([5], [5])
        n1.cluster.here.hide(5, False)
        await wait_all_tasks_blocked(0.003)
        assert n2.node.registry.seems_online(5)


async def test_who_begins_to_hide_on_one_device_is_hidden_by_the_nodes_of_all() -> None:
    """The nodes that have the user elsewhere, and the one that has told of it, included."""
    async with nodes_of("n1", "n2", "n3") as nodes:
        n1, n2, n3 = nodes.running
        devices = [await n.join(5) for n in (n1, n2)]
        for hidden in (True, False):
            n1.cluster.here.hide(5, hidden)
            await wait_all_tasks_blocked(0.003)
            for n in nodes.running:
                assert n.node.registry.online(5)
                assert n.node.registry.seems_online(5) != hidden
            assert n2.cluster.here.all() == ([5], [5] if hidden else [])
            assert n3.peer(n2).users == n3.peer(n1).users == {5: hidden}
        await nothing_more(devices)


async def test_who_begins_to_hide_while_a_session_is_announced_is_hidden_there() -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        await n1.join(5)
        await n2.cluster.here.announce({5: False})
        n1.cluster.here.hide(5, True)
        await wait_all_tasks_blocked(0.003)
        await n2.join(5)
        assert not n2.node.registry.seems_online(5)


async def test_a_node_that_comes_later_is_told_of_all_who_are_here(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1") as nodes:
        (n1,) = nodes.running
        await n1.cluster.here.announce({5: False, 6: True})
        n2 = nodes.start("n2")
        await nodes.settled()
        assert n2.peer(n1).users == {5: False, 6: True}


async def test_a_node_that_dies_takes_its_users_with_it(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        await n2.cluster.here.announce({5: False})
        n2.kill()
        started = trio.current_time()
        await nodes.until(lambda: not n1.node.registry.online(5))
        assert trio.current_time() - started < 2 * LEASE_MS / 1000
        assert await nodes.presence.online([5]) == set()


async def test_who_leaves_ends_what_was_followed_for_them() -> None:
    async with one_node() as n:
        await n.join(2)
        peer = n.cluster.peer("in2")
        n.cluster.following.join(peer, w.Join("d/1/2", 1, 0, [2], [0], True, False))
        assert n.cluster.following.followers
        n.cluster.here.departed(2)
        assert not n.cluster.following.followers
