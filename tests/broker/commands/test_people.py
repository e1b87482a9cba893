"""Profiles: what others may see, what one sees oneself, and who is found."""

from __future__ import annotations

import pytest

from storage.records import User
from tests.helpers.broker import Broker
from tests.helpers.peer import Map


async def test_a_public_profile_by_id_and_by_name(broker: Broker) -> None:
    ann, bob = await broker.join("ann"), await broker.join("Bob")
    await bob.ok(
        "profile.set",
        nickname="Bobby 👨‍👩‍👧",
        bio="I play\nchess",
        avatar="b.png",
        status="busy",
        email="bob@example.org",
        phone="+49 30 1234567",
        show_phone="everyone",
    )
    profile = {
        "t": "ok",
        "user": bob.user,
        "name": "Bob",
        "nickname": "Bobby 👨‍👩‍👧",
        "avatar": "b.png",
        "bio": "I play\nchess",
        "phone": "+49 30 1234567",
        "online": True,
        "status": "busy",
    }

    assert await ann.ok("user.get", user=bob.user) == {"id": 2, **profile}
    assert await ann.ok("user.get", name="BOB") == {"id": 3, **profile}


async def test_who_hides_is_offline_and_was_never_seen(broker: Broker) -> None:
    ann, bob = await broker.join("ann"), await broker.join("bob")
    await broker.store.seen({bob.user: 5})
    await bob.ok("profile.set", show_online="nobody", status="here")

    found = await ann.ok("user.get", user=bob.user)

    assert found["online"] is False
    assert not {"last_seen", "status", "email", "phone"} & found.keys()


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"user": 4711}, "not_found", "user"),
        ({"name": "nobody"}, "not_found", "name"),
        ({}, "bad_request", "user"),
        ({"user": 1, "name": "ann"}, "bad_request", "user"),
        ({"user": 0}, "bad_request", "user"),
        ({"user": 2**53}, "bad_request", "user"),
    ],
)
async def test_nobody_of_that_name(broker: Broker, fields: Map, code: str, field: str) -> None:
    ann = await broker.join("ann")
    error = await ann.error("user.get", **fields)
    assert (error["code"], error["field"]) == (code, field)


async def test_the_disabled_are_not_found(broker: Broker) -> None:
    ann = await broker.join("ann")
    (gone,) = await broker.store.create_users([User(id=0, name="gone", disabled=True)], [None])
    assert (await ann.error("user.get", user=gone.id))["code"] == "not_found"
    assert (await ann.ok("user.find", query="gone"))["users"] == []


async def test_people_are_found_by_how_their_names_begin(broker: Broker) -> None:
    ann = await broker.join("ann")
    for name in ("Berta", "bert", "Albert", "ＢＥＲＮＤ", "بدر"):
        await broker.user(name)

    found = await ann.ok("user.find", query="bEr")

    assert [user["name"] for user in found["users"]] == ["ＢＥＲＮＤ", "bert", "Berta"]
    assert len((await ann.ok("user.find", query="ber", limit=2))["users"]) == 2
    assert [u["name"] for u in (await ann.ok("user.find", query="بد"))["users"]] == ["بدر"]
    assert (await ann.error("user.find", query=""))["field"] == "query"


async def test_ones_own_profile_has_everything_but_what_is_the_brokers(broker: Broker) -> None:
    ann = await broker.join("ann")

    changed = await ann.ok("profile.set", email="ann@example.org", nickname="Ann")
    cleared = await ann.ok("profile.set", nickname="", bio="x")

    assert set(changed) - {"t", "id"} == {
        "user",
        "name",
        "nickname",
        "avatar",
        "bio",
        "status",
        "email",
        "phone",
        "show_online",
        "show_email",
        "show_phone",
        "created",
        "last_seen",
    }
    assert (changed["nickname"], cleared["nickname"], cleared["bio"]) == ("Ann", "", "x")
    own = await ann.ok("profile.get")
    assert {k: v for k, v in own.items() if k != "id"} == {
        k: v for k, v in cleared.items() if k != "id"
    }
    assert own["email"] == "ann@example.org"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", "not an address"),
        ("phone", "call me"),
        ("nickname", "  "),
        ("nickname", "a\u0000b"),
        ("nickname", "x" * 129),
        ("status", "two\nlines"),
        ("bio", "x" * 5000),
        ("show_online", "friends"),
        ("avatar", 5),
    ],
)
async def test_a_profile_that_cannot_be(broker: Broker, field: str, value: object) -> None:
    ann = await broker.join("ann")
    before = await ann.ok("profile.get")

    error = await ann.error("profile.set", **{field: value})

    assert (error["code"], error["field"]) == ("bad_request", field)
    assert (await ann.ok("profile.get")) == before | {"id": 4}
