"""Who is online: the state to start from, the changes after, and what people hide."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.broker.commands.people import heard
from tests.helpers.broker import Broker, running_broker
from tests.helpers.cluster import any_of_a_cluster
from tests.helpers.peer import Map, Peer


@pytest.fixture(params=[running_broker, any_of_a_cluster])
async def broker(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    async with request.param(tmp_path, presence__coalesce_ms=20) as broker:
        yield broker


async def change(peer: Peer) -> list[Map]:
    """The users of the next event."""
    users: list[Map] = (await peer.event("presence"))["users"]
    return users


async def test_watchers_get_the_state_and_then_the_changes(broker: Broker) -> None:
    ann, bob = await broker.join("ann"), await broker.join("bob")
    cy = await broker.user("cy")

    start = await ann.ok("presence.watch", users=[bob.user, cy.id, 4711, ann.user])

    assert sorted(start["users"], key=lambda state: state["user"]) == [
        {"user": ann.user, "online": True},
        {"user": bob.user, "online": True},
        {"user": cy.id, "online": False},
    ]
    there = await broker.join("cy")
    assert await change(ann) == [{"user": cy.id, "online": True}]
    await there.aclose()
    (gone,) = await change(ann)
    assert (gone["user"], gone["online"]) == (cy.id, False)
    assert gone["last_seen"] > 1_700_000_000_000


async def test_a_status_is_a_change_and_hiding_looks_like_leaving(broker: Broker) -> None:
    ann, bob = await broker.join("ann"), await broker.join("bob")
    await ann.ok("presence.watch", users=[bob.user])

    await bob.ok("profile.set", status="at lunch")
    assert await change(ann) == [{"user": bob.user, "online": True, "status": "at lunch"}]
    await bob.ok("profile.set", show_online="nobody")
    assert await change(ann) == [{"user": bob.user, "online": False}]
    assert (await ann.ok("presence.get", users=[bob.user]))["users"] == [
        {"user": bob.user, "online": False}
    ]


async def test_who_looks_away_hears_no_more(broker: Broker) -> None:
    ann, bob, cy = [await broker.join(name) for name in ("ann", "bob", "cy")]
    await ann.ok("presence.watch", users=[bob.user, cy.user])

    await ann.ok("presence.unwatch", users=[bob.user, 4711])
    await bob.ok("profile.set", status="unseen")
    await cy.ok("profile.set", status="seen")

    assert await change(ann) == [{"user": cy.user, "online": True, "status": "seen"}]
    assert await heard(ann) == []


async def test_a_connection_watches_only_so_many(broker: Broker) -> None:
    ann, bob = await broker.join("ann"), await broker.join("bob")
    await ann.ok("presence.watch", users=list(range(bob.user, bob.user + 1000)))

    error = await ann.error("presence.watch", users=[5000])

    assert (error["code"], error["field"]) == ("too_large", "users")
    await ann.ok("presence.watch", users=[bob.user])  # known already
    await ann.ok("presence.unwatch", users=[1001])
    await ann.ok("presence.watch", users=[5000])
    assert (await ann.error("presence.get", users=list(range(1, 1002))))["field"] == "users"
    assert (await ann.error("presence.get", users=[]))["field"] == "users"


async def test_long_statuses_follow_as_events(tmp_path: Path) -> None:
    async with running_broker(tmp_path, limits__frame_bytes=2048) as broker:
        ann = await broker.join("ann")
        others = []
        for n in range(10):
            user = await broker.user(f"user {n}")
            await broker.store.update_user(user.id, {"status": "ж" * 128})
            others.append(user.id)

        reply = await ann.ok("presence.get", users=others)

        states = [*reply["users"]]
        for event in await heard(ann):
            assert event["t"] == "presence"
            states += event["users"]
        assert 0 < len(reply["users"]) < 10
        assert sorted(state["user"] for state in states) == others
