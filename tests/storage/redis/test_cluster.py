"""A Redis Cluster: each key at its node, slots that move, and a node that fails alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import trio

from storage.errors import Unavailable
from storage.redis import RedisShared, open_redis
from storage.redis.cluster import CLUSTER_SLOTS, redirection, slot_of
from tests.helpers.servers import Redis, redis
from tests.storage.redis.clusters import HALF, OPTIONS, cluster_url, redis_cluster
from tests.storage.redis.helpers import PATIENCE_S, ask, until

LONG_MS = 60_000
USERS = range(1, 41)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[Redis, Redis]]:
    with redis_cluster(tmp_path) as pair:
        yield pair


def name_in(slots: range, pattern: str) -> str:
    """A name whose key is in one of these slots."""
    return next(str(number) for number in count() if slot_of((pattern % number).encode()) in slots)


def move(slot: int, source: Redis, target: Redis) -> None:
    """Hand over an empty slot."""
    owner = ask(target.url, "CLUSTER", "MYID")
    for server in (target, source):
        assert ask(server.url, "CLUSTER", "SETSLOT", str(slot), "NODE", owner) == b"OK"


async def heard(node: RedisShared, wanted: bytes, sender: RedisShared, to: str) -> None:
    """Send until it arrives."""

    async def arrived() -> bool:
        sender.bus.send(to, wanted)
        with trio.move_on_after(0.1):
            return wanted in await node.bus.receive()
        return False

    await until(arrived)


def test_slots_are_those_of_redis(server: Redis) -> None:
    with redis(server.folder / "cluster", OPTIONS) as cluster:
        for key in (b"", b"a", b"123456789", b"x{tag}y", b"x{}y", b"{a}{b}", b"{open", b"\xff{\0}"):
            assert ask(cluster.url, "CLUSTER", "KEYSLOT", key) == slot_of(key)


def test_a_redirection_without_a_host_is_to_another_port_of_the_same() -> None:
    assert redirection("MOVED 3999 10.0.0.2:6381", ("a", 1)) == ("10.0.0.2", 6381)
    assert redirection("ASK 3999 ::1:6381", ("a", 1)) == ("::1", 6381)
    assert redirection("MOVED 3999 :6381", ("a", 1)) == ("a", 6381)


async def test_all_works_over_two_nodes(cluster: tuple[Redis, Redis]) -> None:
    one, two = cluster
    async with (
        open_redis(cluster_url(one), inbox="a") as a,
        open_redis(cluster_url(two), inbox="b") as b,
        open_redis(cluster_url(one, two), inbox="c") as c,
    ):
        await a.ping()
        await a.presence.keep_alive("a", LONG_MS)
        await a.presence.update("a", here=USERS, gone=[1])
        assert await b.presence.online(USERS) == {*USERS} - {1}
        assert min(ask(server.url, "DBSIZE") for server in cluster) > 5, "both have some"
        for who in map(str, USERS):
            assert await b.ephemeral.wait_ms("login", who, per_minute=1) == 0
            assert await a.ephemeral.wait_ms("login", who, per_minute=1) > 0
        nodes = {"a": a, "b": b, "c": c}
        for number in range(100):
            for to in nodes:
                assert a.bus.send(to, b"%d" % number)
        for node in nodes.values():
            got: list[bytes] = []
            with trio.fail_after(PATIENCE_S):
                while len(got) < 100:
                    got += await node.bus.receive()
            assert got == [b"%d" % number for number in range(100)]
        await a.presence.forget("a")
        assert await b.presence.online(USERS) == set()


async def test_a_slot_that_moved_is_found_again(cluster: tuple[Redis, Redis]) -> None:
    one, two = cluster
    user = int(name_in(range(HALF), "parley:u:%d"))
    async with open_redis(cluster_url(one), inbox="a") as a:
        await a.presence.keep_alive("a", LONG_MS)
        move(slot_of(b"parley:u:%d" % user), one, two)
        await a.presence.update("a", here=[user, *USERS], gone=[])
        assert ask(two.url, "EXISTS", f"parley:u:{user}") == 1
        assert await a.presence.online([user, *USERS]) == {user, *USERS}
        assert b"errorstat_MOVED" in ask(one.url, "INFO", "errorstats")

        async def learnt() -> bool:
            moved = ask(one.url, "INFO", "errorstats")
            assert await a.presence.online([user, *USERS]) == {user, *USERS}
            return ask(one.url, "INFO", "errorstats") == moved

        await until(learnt)
        assert await a.presence.keep_alive("a", LONG_MS), "nothing was lost"


async def test_a_slot_that_is_moving_is_asked_for_at_both(cluster: tuple[Redis, Redis]) -> None:
    one, two = cluster
    user = int(name_in(range(HALF), "parley:u:%d"))
    slot = str(slot_of(b"parley:u:%d" % user))
    ids = [ask(server.url, "CLUSTER", "MYID") for server in cluster]
    assert ask(two.url, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0]) == b"OK"
    assert ask(one.url, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1]) == b"OK"
    async with open_redis(cluster_url(one, two), inbox="a") as a:
        await a.presence.keep_alive("a", LONG_MS)
        await a.presence.update("a", here=[user, *USERS], gone=[])
        assert await a.presence.online([user, *USERS]) == {user, *USERS}
    move(int(slot), one, two)
    assert ask(two.url, "HLEN", f"parley:u:{user}") == 1


async def test_an_inbox_whose_slot_moved_is_listened_at_there(cluster: tuple[Redis, Redis]) -> None:
    one, two = cluster
    inbox = name_in(range(HALF), "parley:bus:{%d}")
    async with (
        open_redis(cluster_url(one, two), inbox=inbox) as node,
        open_redis(cluster_url(one, two), inbox="other") as other,
    ):
        await heard(node, b"before", other, inbox)
        move(slot_of(inbox.encode()), one, two)
        await heard(node, b"after", other, inbox)
        assert node.bus.statistics().interruptions == 1


@pytest.mark.usefixtures("impatient")
async def test_a_node_that_fails_takes_only_its_own_keys_with_it(
    cluster: tuple[Redis, Redis],
) -> None:
    one, two = cluster
    here = int(name_in(range(HALF), "parley:u:%d"))
    there = int(name_in(range(HALF, CLUSTER_SLOTS), "parley:u:%d"))
    inbox = name_in(range(HALF), "parley:bus:{%d}")
    async with open_redis(cluster_url(two, one), inbox=inbox) as node:
        interruptions = node.statistics().interruptions
        two.kill()
        for _ in range(5):
            assert await node.presence.online([here]) == set()
            with pytest.raises(Unavailable):
                await node.presence.online([there])
        assert node.statistics().connected
        assert node.statistics().interruptions > interruptions
        assert node.bus.send(inbox, b"to myself")
        with trio.fail_after(PATIENCE_S):
            assert await node.bus.receive() == [b"to myself"]


async def test_a_cluster_without_slots_is_unavailable(tmp_path: Path) -> None:
    with redis(tmp_path, OPTIONS) as server, pytest.raises(Unavailable, match="no map of slots"):
        async with open_redis(cluster_url(server), inbox="a"):
            pass


async def test_a_server_that_is_no_cluster_is_unavailable(server: Redis) -> None:
    with pytest.raises(Unavailable, match="cluster support disabled"):
        async with open_redis(cluster_url(server), inbox="a"):
            pass
