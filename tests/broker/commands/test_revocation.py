"""Whoever's session ends is told and cut off, wherever it was ended; others are left alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from broker.commands.revocation import PAUSE_S, PERIOD_S
from storage.errors import Unavailable
from storage.memory import MemoryStore
from storage.records import User
from tests.helpers.broker import Broker, running_broker
from tests.helpers.peer import Map, Peer


async def login(broker: Broker) -> tuple[Peer, Map]:
    """An account's first connection by password, and what it was given."""
    peer = await broker.tcp()
    await peer.ok("register", name="alice", password="correct horse")
    return peer, await peer.ok("login", name="alice", password="correct horse")


async def expect_revoked(peer: Peer) -> None:
    bye = await peer.event("bye")
    assert (bye["code"], bye["reconnect"]) == ("session_revoked", False)
    await peer.ended()


async def test_using_a_refresh_token_twice_cuts_off_the_live_session(
    broker: Broker, autojump_clock: MockClock
) -> None:
    victim, given = await login(broker)
    bystander = await broker.join("bob")
    thief = await broker.tcp()
    await thief.ok("refresh", refresh=given["refresh"])
    before = trio.current_time()
    assert (await victim.error("refresh", refresh=given["refresh"]))["code"] == "unauthenticated"
    await expect_revoked(victim)
    assert trio.current_time() - before <= PAUSE_S + 0.1
    await bystander.ok("ping")
    error = await (await broker.tcp()).error("hello", token=given["token"])
    assert error["code"] == "unauthenticated"


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
