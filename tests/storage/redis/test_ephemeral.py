"""Ephemeral state: its keys go by themselves, and its scripts survive a server that forgot them."""

from __future__ import annotations

from storage.redis.ephemeral import RedisEphemeral
from tests.helpers.servers import Redis
from tests.storage.redis.helpers import ask, open_pipeline


async def test_a_server_that_forgot_the_scripts_is_told_them_again(server: Redis) -> None:
    async with open_pipeline(server.url) as pipeline:
        ephemeral = RedisEphemeral(pipeline, "parley")
        for _ in range(2):
            ask(server.url, "SCRIPT", "FLUSH")
            assert await ephemeral.wait_ms("login", "ana", per_minute=100) == 0
            await ephemeral.put_code("ana", "code", ttl_ms=60_000, tries=3)
            assert await ephemeral.try_code("ana", "code")


async def test_a_redis_that_lost_all_is_claimed_anew_and_each_prefix_apart(server: Redis) -> None:
    async with open_pipeline(server.url) as pipeline:
        ours, others = RedisEphemeral(pipeline, "parley"), RedisEphemeral(pipeline, "other")
        assert await ours.claim("one") == "one"
        assert await others.claim("two") == "two"
        ask(server.url, "FLUSHALL")
        assert await ours.claim("one") == "one"
        assert ask(server.url, "GET", "parley:cluster") == b"one"


async def test_every_key_goes_by_itself(server: Redis) -> None:
    async with open_pipeline(server.url) as pipeline:
        ephemeral = RedisEphemeral(pipeline, "parley")
        for _ in range(3):
            await ephemeral.wait_ms("login", "ana", per_minute=6)
        await ephemeral.put_code("ana", "code", ttl_ms=5_000, tries=3)
        assert not await ephemeral.try_code("ana", "wrong")
        assert 20_000 < ask(server.url, "PTTL", "parley:r:5:login:ana") <= 30_000
        assert 0 < ask(server.url, "PTTL", "parley:c:ana") <= 5_000
        assert ask(server.url, "DBSIZE") == 2


async def test_where_the_clock_was_set_back_nobody_waits_for_long(server: Redis) -> None:
    async with open_pipeline(server.url) as pipeline:
        ephemeral = RedisEphemeral(pipeline, "parley")
        ask(server.url, "SET", "parley:r:5:login:ana", "9000000000000000")
        assert 0 < await ephemeral.wait_ms("login", "ana", per_minute=6) <= 10_000
