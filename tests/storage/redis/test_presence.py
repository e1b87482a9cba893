"""Presence over a Redis that forgets: a node is told to write its entries again when it must."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from storage.redis.presence import KEPT_S, REWRITTEN_S, RedisPresence
from tests.helpers.servers import Redis
from tests.storage.redis.helpers import Door, ask, open_pipeline, until

LONG_MS = 60_000


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def open_presence(
    server: Redis, clock: Clock | None = None, door: Door | None = None
) -> AsyncIterator[RedisPresence]:
    async with open_pipeline(server.url, door) as pipeline:
        yield RedisPresence(pipeline, "parley", clock or Clock())


async def test_a_redis_that_lost_all_gets_it_again(server: Redis) -> None:
    async with open_presence(server) as presence:
        assert not await presence.keep_alive("a", LONG_MS)
        await presence.update("a", here=[1, 2], gone=[])
        assert await presence.keep_alive("a", LONG_MS)
        ask(server.url, "FLUSHALL")
        assert await presence.online([1, 2]) == set()
        assert not await presence.keep_alive("a", LONG_MS)
        await presence.update("a", here=[1, 2], gone=[])
        assert await presence.online([1, 2]) == {1, 2}
        assert await presence.keep_alive("a", LONG_MS)


async def test_after_an_interruption_all_is_written_again(server: Redis) -> None:
    """A standby that took over may lack the last second, though it has the node's key."""
    async with open_presence(server) as presence:
        await presence.keep_alive("a", LONG_MS)
        ask(server.url, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        async def answered() -> bool:
            return await presence.online([1]) == set()

        await until(answered)
        assert ask(server.url, "EXISTS", "parley:n:a") == 1
        assert not await presence.keep_alive("a", LONG_MS)
        assert await presence.keep_alive("a", LONG_MS)


async def test_an_answer_that_nobody_heard_does_not_count(server: Redis) -> None:
    door = Door()
    door.open()
    async with open_presence(server, door=door) as presence:
        assert not await presence.keep_alive("a", LONG_MS)
        assert await presence.keep_alive("a", LONG_MS)
        ask(server.url, "FLUSHALL")
        door.shut()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(presence.keep_alive, "a", LONG_MS)
            await door.reached()
            nursery.cancel_scope.cancel()
        door.open()

        async def written() -> bool:
            return bool(ask(server.url, "EXISTS", "parley:n:a"))

        await until(written)
        assert not await presence.keep_alive("a", LONG_MS), "the key is there, the entries are not"
        assert await presence.keep_alive("a", LONG_MS)


async def test_a_node_that_lives_for_long_writes_its_entries_before_they_expire(
    server: Redis,
) -> None:
    clock = Clock()
    async with open_presence(server, clock) as presence:
        await presence.keep_alive("a", LONG_MS)
        await presence.update("a", here=[1], gone=[])
        assert REWRITTEN_S * 1000 < ask(server.url, "PTTL", "parley:u:1") <= KEPT_S * 1000
        clock.now += REWRITTEN_S - 1
        assert await presence.keep_alive("a", LONG_MS)
        clock.now += 1
        assert not await presence.keep_alive("a", LONG_MS)
        assert await presence.keep_alive("a", LONG_MS)


async def test_fields_of_the_dead_go_when_somebody_comes_upon_them(server: Redis) -> None:
    async with open_presence(server) as presence:
        for node in ("a", "b"):
            await presence.keep_alive(node, LONG_MS)
            await presence.update(node, here=[1], gone=[])
        await presence.forget("a")
        assert ask(server.url, "HLEN", "parley:u:1") == 2
        assert await presence.online([1]) == {1}

        async def removed() -> bool:
            return ask(server.url, "HKEYS", "parley:u:1") == [b"b"]

        await until(removed)


async def test_who_comes_back_from_the_dead_is_not_removed_again(server: Redis) -> None:
    """Another node saw its old field, and removes it only after the new one was written."""
    async with open_presence(server) as presence:
        await presence.keep_alive("a", LONG_MS)
        await presence.update("a", here=[1], gone=[])
        old = ask(server.url, "HGET", "parley:u:1", "a")
        ask(server.url, "DEL", "parley:n:a")
        assert not await presence.keep_alive("a", LONG_MS)
        await presence.update("a", here=[1], gone=[])
        presence._remove(1, b"a", old)
        assert await presence.online([1]) == {1}
        presence._remove(1, b"a", ask(server.url, "HGET", "parley:u:1", "a"))
        assert await presence.online([1]) == set()


async def test_five_thousand_who_come_at_once_are_a_few_pipelines(server: Redis) -> None:
    async with open_pipeline(server.url) as pipeline:
        presence = RedisPresence(pipeline, "parley", Clock())
        await presence.keep_alive("a", LONG_MS)
        before = pipeline.statistics().pipelines
        await presence.update("a", here=range(5000), gone=[])
        assert pipeline.statistics().pipelines - before == 20
        assert await presence.online(range(5000)) == set(range(5000))
        assert pipeline.statistics().pipelines - before == 31
