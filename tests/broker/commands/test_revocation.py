"""Whoever's session ends is told and cut off, wherever it was ended; others are left alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from broker.commands.revocation import PAUSE_S, PERIOD_S
from broker.security.tokens import Tokens, hash_refresh, new_refresh, new_session_id
from storage.errors import Unavailable
from storage.memory import MemoryStore
from storage.records import Session, User
from tests.helpers.broker import SECRET, Broker, running_broker
from tests.helpers.cluster import any_of_a_cluster
from tests.helpers.peer import Peer


@pytest.fixture(params=[running_broker, any_of_a_cluster])
async def broker(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    """In memory only: a clock that jumps would not wait for a store's threads."""
    async with request.param(tmp_path) as broker:
        yield broker


async def login(broker: Broker, name: str) -> tuple[Peer, str, str]:
    """A connection of a session that can be refreshed, its token and its refresh token."""
    user = await broker.user(name)
    refresh = new_refresh()
    session = Session(
        id=new_session_id(),
        user=user.id,
        token_hash=hash_refresh(refresh),
        created=0,
        expires=2**53,
    )
    await broker.store.create_session(session)
    token, _ = Tokens(SECRET, 3_600).issue(user.id, session.id, user.generation)
    peer = await broker.tcp()
    await peer.hello(token)
    return peer, token, refresh


async def expect_revoked(peer: Peer) -> None:
    bye = await peer.event("bye")
    assert (bye["code"], bye["reconnect"]) == ("session_revoked", False)
    await peer.ended()


async def test_using_a_refresh_token_twice_cuts_off_the_live_session(
    broker: Broker, autojump_clock: MockClock
) -> None:
    victim, token, refresh = await login(broker, "alice")
    bystander, _, _ = await login(broker, "bob")
    thief = await broker.tcp()
    await thief.ok("refresh", refresh=refresh)
    before = trio.current_time()
    assert (await victim.error("refresh", refresh=refresh))["code"] == "unauthenticated"
    await expect_revoked(victim)
    assert trio.current_time() - before <= PAUSE_S
    await bystander.ok("ping")
    assert (await (await broker.tcp()).error("hello", token=token))["code"] == "unauthenticated"


CHANGES: dict[str, Any] = {
    "a new password": lambda store, user: store.set_password(user, "hash"),
    "disabled": lambda store, user: store.update_user(user, {"disabled": True}),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_what_is_done_beside_the_broker_is_noticed(
    broker: Broker, autojump_clock: MockClock, change: str
) -> None:
    alice, bob = await broker.join("alice"), await broker.join("bob")
    await CHANGES[change](broker.store, alice.user)
    before = trio.current_time()
    with trio.fail_after(2 * PERIOD_S):
        await expect_revoked(alice)
    assert trio.current_time() - before <= PERIOD_S + 2 * PAUSE_S
    await bob.ok("ping")


class FailingStore(MemoryStore):
    """Cannot read accounts while `failing`."""

    failing = False

    async def users(self, ids: Iterable[int]) -> dict[int, User]:
        if self.failing:
            raise Unavailable("not now")
        return await super().users(ids)


async def test_a_store_that_fails_ends_no_session_and_no_broker(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    store = FailingStore()
    async with running_broker(tmp_path, store=store) as broker:
        alice = await broker.join("alice")
        store.failing = True
        await trio.sleep(PERIOD_S + PAUSE_S)
        error = await (await broker.tcp()).error("hello", token=await broker.token("alice"))
        assert (error["code"], error["retry"]) == ("unavailable", True)
        await alice.ok("ping")
        store.failing = False
        await (await broker.tcp()).hello(await broker.token("alice"))
