"""What ephemeral state must do: buckets refill, a code is good once and for few tries."""

from __future__ import annotations

import trio

from storage.shared import Ephemeral
from tests.conformance.shared_backends import Passing


async def test_the_first_cluster_that_claims_it_has_it(ephemeral: Ephemeral) -> None:
    assert await ephemeral.claim("ours") == "ours"
    assert await ephemeral.claim("ours") == "ours"
    assert await ephemeral.claim("theirs") == "ours"


async def test_a_bucket_holds_what_a_minute_gives(ephemeral: Ephemeral) -> None:
    took = [await ephemeral.wait_ms("login", "ana", per_minute=5) for _ in range(5)]
    assert took == [0] * 5
    wait = await ephemeral.wait_ms("login", "ana", per_minute=5)
    assert 11_000 <= wait <= 12_000, "one comes back every twelve seconds"
    # Who was refused has taken nothing: the next one waits no longer.
    assert await ephemeral.wait_ms("login", "ana", per_minute=5) <= wait


async def test_buckets_are_apart(ephemeral: Ephemeral) -> None:
    assert await ephemeral.wait_ms("login", "ana", per_minute=1) == 0
    assert await ephemeral.wait_ms("login", "ana", per_minute=1) > 0
    assert await ephemeral.wait_ms("login", "bo", per_minute=1) == 0
    assert await ephemeral.wait_ms("code", "ana", per_minute=1) == 0
    assert await ephemeral.wait_ms("lo", "ginana", per_minute=1) == 0
    assert await ephemeral.wait_ms("login:a", "na", per_minute=1) == 0
    assert await ephemeral.wait_ms("login", "a:na", per_minute=1) == 0


async def test_a_bucket_refills(ephemeral: Ephemeral, passing: Passing) -> None:
    for _ in range(600):
        if wait := await ephemeral.wait_ms("send", "ana", per_minute=300):
            break
    assert 0 < wait <= 200
    await passing(wait + 2)
    assert await ephemeral.wait_ms("send", "ana", per_minute=300) == 0


async def test_those_who_take_at_once_take_no_more_than_there_is(ephemeral: Ephemeral) -> None:
    waits: list[int] = []

    async def take() -> None:
        waits.append(await ephemeral.wait_ms("login", "ana", per_minute=10))

    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(take)
    assert sorted(waits)[:10] == [0] * 10
    assert all(5_000 <= wait <= 6_000 for wait in sorted(waits)[10:])


async def test_a_code_is_good_once(ephemeral: Ephemeral) -> None:
    await ephemeral.put_code("ana", "12\r\n34 é", ttl_ms=60_000, tries=3)
    assert not await ephemeral.try_code("bo", "12\r\n34 é")
    assert await ephemeral.try_code("ana", "12\r\n34 é")
    assert not await ephemeral.try_code("ana", "12\r\n34 é")


async def test_each_wrong_code_costs_a_try(ephemeral: Ephemeral) -> None:
    await ephemeral.put_code("ana", "right", ttl_ms=60_000, tries=3)
    assert not await ephemeral.try_code("ana", "wrong")
    assert not await ephemeral.try_code("ana", "")
    assert await ephemeral.try_code("ana", "right")

    await ephemeral.put_code("ana", "right", ttl_ms=60_000, tries=2)
    assert not await ephemeral.try_code("ana", "wrong")
    assert not await ephemeral.try_code("ana", "wrong")
    assert not await ephemeral.try_code("ana", "right")


async def test_a_new_code_takes_the_place_of_the_old_one(ephemeral: Ephemeral) -> None:
    await ephemeral.put_code("ana", "old", ttl_ms=60_000, tries=1)
    await ephemeral.put_code("ana", "new", ttl_ms=60_000, tries=2)
    assert not await ephemeral.try_code("ana", "old")
    assert await ephemeral.try_code("ana", "new")


async def test_a_code_runs_out(ephemeral: Ephemeral, passing: Passing) -> None:
    await ephemeral.put_code("ana", "code", ttl_ms=40, tries=3)
    await passing(100)
    assert not await ephemeral.try_code("ana", "code")
