"""Who hides, hides from all, whatever words are lost or come in another order."""

from __future__ import annotations

from collections.abc import Iterable

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.cluster import beliefs
from broker.commands import presence
from broker.wire import commands as c
from storage.errors import Unavailable
from storage.records import User
from tests.actors.cluster.nodes import ClusterNode, Nodes, nodes_of, one_node
from tests.helpers.peer import Peer

WATCHER, HIDER = 1, 5


async def hide(nodes: Nodes, at: ClusterNode, hidden: bool = True) -> None:
    """The user sets it, on a connection to this node."""
    await nodes.store.update_user(HIDER, {"show_online": "nobody" if hidden else "everyone"})
    at.cluster.here.hide(HIDER, hidden)


def seems_online(nodes: Nodes) -> list[bool]:
    return [n.node.registry.seems_online(HIDER) for n in nodes.running]


async def lost_between(nodes: Nodes, a: ClusterNode, b: ClusterNode, *, hidden: bool) -> None:
    """The word from one to the other is lost, and their link begins anew."""
    async with nodes.network.losing(a.inbox, b.inbox):
        await hide(nodes, a, hidden)
    await trio.sleep(10)


async def device_and_watcher(nodes: Nodes) -> tuple[Peer, Peer]:
    """The user is at the first node; somebody at the second one, who may watch them."""
    n1, n2 = nodes.running
    n2.node.open_table[c.PresenceWatch] = presence.presence_watch
    return await n1.join(HIDER), await n2.join(WATCHER)


async def test_the_word_is_lost_between_the_two_nodes_that_have_the_user(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        _devices = [await n.join(HIDER) for n in (n1, n2)]
        for hidden in (True, False):
            await lost_between(nodes, n1, n2, hidden=hidden)
            assert seems_online(nodes) == [not hidden] * 2
            assert n2.cluster.here.all() == ([HIDER], [HIDER] if hidden else [])


async def test_the_word_is_lost_on_its_way_to_a_third_node(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2", "n3") as nodes:
        n1, n2, n3 = nodes.running
        _devices = [await n.join(HIDER) for n in (n1, n2)]
        for hidden in (True, False):
            await lost_between(nodes, n1, n3, hidden=hidden)
            assert seems_online(nodes) == [not hidden] * 3


async def test_who_watches_elsewhere_is_told_though_the_word_was_lost(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        _device, watcher = await device_and_watcher(nodes)
        assert (await watcher.ok("presence.watch", users=[HIDER]))["users"][0]["online"]
        await lost_between(nodes, n1, n2, hidden=True)
        await watcher.ok("ping")
        assert [user["online"] for event in watcher.events for user in event["users"]] == [False]


async def test_who_watches_is_not_told_what_has_not_changed_when_a_link_begins_anew(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        _device, watcher = await device_and_watcher(nodes)
        await trio.sleep(5)
        await watcher.ok("presence.watch", users=[HIDER])
        session = n1.peer(n2).link.session
        n1.cluster._begin(n1.peer(n2))
        await trio.sleep(5)
        assert n1.peer(n2).link.session != session
        await watcher.ok("ping")
        assert not watcher.events


async def test_a_hello_was_vouched_for_before_they_hid() -> None:
    """The node looks the user up, hears that they hide now, and announces what it had found."""
    async with nodes_of("n1", "n2", "n3") as nodes:
        n1, n2, _ = nodes.running
        _device = await n1.join(HIDER)
        await hide(nodes, n1)
        await wait_all_tasks_blocked(0.003)
        await n2.join_connection(HIDER, hidden=False)
        await wait_all_tasks_blocked(0.003)
        assert seems_online(nodes) == [False] * 3


async def test_what_is_heard_while_the_store_is_read_is_newer() -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        _device = await n1.join(HIDER)
        read, gate = nodes.store.users, trio.Event()

        async def slow(ids: Iterable[int]) -> dict[int, User]:
            found = await read(ids)
            await gate.wait()
            return found

        nodes.store.users = slow  # type: ignore[method-assign]
        _other = await n2.join_connection(HIDER, hidden=True)  # is asked about: it does not hide
        await wait_all_tasks_blocked(0.003)
        await hide(nodes, n1)
        await wait_all_tasks_blocked(0.003)
        gate.set()
        await wait_all_tasks_blocked(0.003)
        assert seems_online(nodes) == [False] * 2


async def test_a_store_that_is_away_is_asked_again(autojump_clock: MockClock) -> None:
    async with one_node() as n:
        other = n.cluster.peer("in2")
        await n.join(HIDER)
        read, away = n.nodes.store.users, [Unavailable("away")] * 3

        async def users(ids: Iterable[int]) -> dict[int, User]:
            if away:
                raise away.pop()
            return await read(ids)

        n.nodes.store.users = users  # type: ignore[method-assign]
        other.arrived([HIDER], [HIDER])
        n.cluster.here.compare([HIDER])
        await trio.sleep(2.5 * beliefs.RETRY_S)
        assert other.users == {HIDER: True}
        await trio.sleep(beliefs.RETRY_S)
        assert not away
        assert other.users == {HIDER: False}
