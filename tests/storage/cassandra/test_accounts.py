"""Names are unique whoever crashes on the way, and ids are never given twice."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from unittest.mock import patch

import pytest
import trio

from storage.cassandra import CassandraStore
from storage.cassandra.connection import CONDITIONAL, WRITE
from storage.cassandra.session import Connected
from storage.errors import NameTaken
from tests.conformance.making import user
from tests.helpers.cassandra import another_store, empty_store


@pytest.fixture
async def stores(cassandra: Connected) -> AsyncIterator[list[CassandraStore]]:
    """Four processes on one keyspace."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(empty_store(cassandra))
        others = [await stack.enter_async_context(another_store(cassandra)) for _ in range(3)]
        yield [first, *others]


async def test_of_many_who_want_a_name_one_gets_it(stores: list[CassandraStore]) -> None:
    got: list[int] = []
    refused = 0

    async def want(store: CassandraStore, number: int) -> None:
        nonlocal refused
        try:
            made = await store.create_users([user(f"u{number}"), user("ANA")], [None, None])
            got.append(made[1].id)
        except NameTaken:
            refused += 1

    async with trio.open_nursery() as nursery:
        for number, store in enumerate(stores * 2):
            nursery.start_soon(want, store, number)
    assert (len(got), refused) == (1, 7)
    found = await stores[1].users_by_name(["ana"])
    assert [account.id for account in found.values()] == got
    # Those who were refused left nothing.
    assert len(await stores[0].users_by_name([f"u{n}" for n in range(8)])) == 1
    assert len(await stores[0].find_users("u", limit=99)) == 1
    assert len(await stores[0].list_users(after=0, limit=99)) == 2


async def test_a_name_whose_taker_crashed_is_free_after_a_while(
    cassandra: Connected, stores: list[CassandraStore]
) -> None:
    bind = cassandra.statements.bind
    store = stores[0]
    await store.bridge.one(bind("claim_name", "ana", 777), CONDITIONAL)
    await store.bridge.one(bind("add_name", "an", "ana", 777), WRITE)
    assert await store.users_by_name(["ana"]) == {}
    assert await store.find_users("ana", limit=9) == []
    with patch("storage.cassandra.accounts.HALF_MADE_PERIOD_S", 0.01):
        (made,) = await store.create_users([user("ana")], ["hash"])
    assert await store.users_by_name(["ana"]) == {"ana": made}
    assert await store.find_users("ana", limit=9) == [made]
    # Should the crashed one wake up, its account can not come to be.
    values = ["ana", *([""] * 6), "everyone", "nobody", "nobody", 0, False, 0, "hash"]
    (answer,) = await store.bridge.one(bind("add_user", *values, 777), CONDITIONAL)
    assert not answer["[applied]"]


async def test_ids_of_many_processes_are_all_different(stores: list[CassandraStore]) -> None:
    ids: list[int] = []

    async def take(store: CassandraStore) -> None:
        ids.extend([await store.next_group_id() for _ in range(30)])

    with patch("storage.cassandra.blocks.BLOCK_IDS", 10):
        async with trio.open_nursery() as nursery:
            for store in stores:
                nursery.start_soon(take, store)
    assert len(set(ids)) == 120
    assert min(ids) == 1


async def test_accounts_are_listed_across_partitions(stores: list[CassandraStore]) -> None:
    with patch("storage.cassandra.accounts.ID_BUCKET", 7):
        made = await stores[0].create_users([user(f"n{n}") for n in range(40)], [None] * 40)
        other = await stores[1].create_users([user("last")], [None])
        assert await stores[2].list_users(after=0, limit=99) == [*made, *other]
        assert await stores[2].list_users(after=made[12].id, limit=3) == made[13:16]


async def test_a_search_goes_on_over_its_pages(stores: list[CassandraStore]) -> None:
    names = sorted(f"{first}{n:02}" for first in ("a", "ab", "abc", "b") for n in range(12))
    await stores[0].create_users(
        [user(name, disabled=name.endswith("3")) for name in names], [None] * len(names)
    )
    shown = [name for name in names if not name.endswith("3")]
    with patch("storage.cassandra.accounts.NAMES_PAGE_ROWS", 5):
        for prefix in ("", "a", "ab", "abc", "abc1", "c"):
            found = await stores[1].find_users(prefix, limit=99)
            assert [account.name for account in found] == [
                name for name in shown if name.startswith(prefix)
            ]
        assert [a.name for a in await stores[1].find_users("ab", limit=7)] == [
            name for name in shown if name.startswith("ab")
        ][:7]


async def test_a_name_is_found_though_a_faster_clock_listed_it_for_who_crashed(
    cassandra: Connected, stores: list[CassandraStore]
) -> None:
    ahead = (time.time_ns() + 3_600 * 10**9) // 1_000
    listing = stores[0]._bind("add_name", "an", "anna", 77)
    with patch.object(cassandra.session.cluster, "timestamp_generator", lambda: ahead):
        await stores[0].bridge.one(listing, WRITE)
    (anna,) = await stores[0].create_users([user("anna")], [None])
    assert await stores[0].find_users("an", limit=9) == [anna]
