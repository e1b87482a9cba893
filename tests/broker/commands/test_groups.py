"""Groups as such, told by those who make, change, find and end them."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.records import User
from tests.broker.commands.people import entries_heard, heard, say, seqs
from tests.helpers.broker import Broker, running_broker


async def test_a_new_group_is_told_to_its_first_members(broker: Broker) -> None:
    ann, bob, cy = [await broker.join(name) for name in ("ann", "bob", "cy")]

    made = await ann.ok(
        "group.create", title="Chess ♟", about="on Sundays", members=[bob.user, ann.user]
    )

    assert (made["seq"], made["head"], made["role"], made["members"]) == (1, 1, "owner", 2)
    assert made["conv"] == f"g/{made['group']}"
    notice, entry = await heard(bob)
    created = {"event": "created", "users": [ann.user, bob.user], "by": ann.user}
    assert notice == {
        "t": "conv",
        "conv": made["conv"],
        "change": "created",
        "users": [ann.user, bob.user],
        "by": ann.user,
        "title": "Chess ♟",
    }
    assert (entry["kind"], entry["body"]) == ("system", created | {"title": "Chess ♟"})
    assert seqs(await entries_heard(ann)) == [1]
    assert await heard(cy) == []


async def test_a_group_looks_the_same_to_members_and_less_to_others(broker: Broker) -> None:
    ann, bob = await broker.join("ann"), await broker.join("bob")
    made = await ann.ok("group.create", title="Open", visibility="public", about="for all")

    mine = await ann.ok("group.get", conv=made["conv"])
    theirs = await bob.ok("group.get", group=made["group"])

    assert mine["role"] == "owner"
    assert mine["head"] == 1
    assert {k: v for k, v in mine.items() if k not in ("role", "head", "id")} == {
        k: v for k, v in theirs.items() if k != "id"
    }
    assert (theirs["members"], theirs["online"], theirs["about"]) == (1, 1, "for all")


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"title": " \t "}, "bad_request", "title"),
        ({"title": "two\nlines"}, "bad_request", "title"),
        ({"title": ""}, "bad_request", "title"),
        ({"title": "x", "kind": "tribe"}, "bad_request", "kind"),
        ({"title": "x", "members": [4711]}, "not_found", "members"),
        ({"title": "x", "members": list(range(1, 8))}, "too_large", "members"),
    ],
)
async def test_a_group_that_cannot_be(
    tmp_path: Path, fields: dict[str, object], code: str, field: str
) -> None:
    async with running_broker(tmp_path, limits__group_members=5) as broker:
        ann = await broker.join("ann")

        error = await ann.error("group.create", **fields)

        assert (error["code"], error["field"]) == (code, field)
        assert (await ann.ok("group.mine"))["groups"] == []


async def test_somebody_disabled_cannot_be_made_a_member(broker: Broker) -> None:
    ann = await broker.join("ann")
    (gone,) = await broker.store.create_users([User(id=0, name="gone", disabled=True)], [None])

    error = await ann.error("group.create", title="x", members=[gone.id])

    assert (error["code"], error["field"]) == ("not_found", "members")
    assert str(gone.id) in error["message"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "bad_request"),
        ({"conv": "g/1", "group": 1}, "bad_request"),
        ({"conv": "d/1/2"}, "bad_request"),
        ({"conv": "g/0"}, "bad_request"),
        ({"conv": "g/77"}, "not_found"),
        ({"group": 2**53 - 1}, "not_found"),
    ],
)
async def test_a_group_must_be_named_and_must_be(
    broker: Broker, fields: dict[str, object], code: str
) -> None:
    ann = await broker.join("ann")
    for command in ("group.get", "group.join", "group.leave", "group.members", "group.dissolve"):
        error = await ann.error(command, **fields)
        assert (error["code"], error["field"]) == (code, "conv"), command


async def test_changes_are_entries_and_no_change_is_none(broker: Broker) -> None:
    ann, bob = await broker.join("ann"), await broker.join("bob")
    conv = (await ann.ok("group.create", title="Old", members=[bob.user]))["conv"]
    await heard(bob)

    renamed = await ann.ok("group.set", conv=conv, title="New", about="better")
    changed = await ann.ok("group.set", conv=conv, join="open")
    same = await ann.ok("group.set", conv=conv, title="New")

    assert (renamed["seq"], changed["seq"], "seq" in same) == (2, 3, False)
    assert (same["title"], same["about"], same["join"]) == ("New", "better", "open")
    events = await heard(bob)
    assert [(e["t"], e.get("change") or e["body"]["event"]) for e in events] == [
        ("conv", "renamed"),
        ("msg", "renamed"),
        ("conv", "changed"),
        ("msg", "changed"),
    ]
    assert events[1]["body"] == {
        "event": "renamed",
        "users": [],
        "by": ann.user,
        "title": "New",
        "about": "better",
    }
    assert (await bob.ok("group.get", conv=conv))["title"] == "New"


async def test_a_dissolved_group_says_goodbye_and_is_gone(broker: Broker) -> None:
    ann, bob, cy = [await broker.join(name) for name in ("ann", "bob", "cy")]
    fields = {"visibility": "public", "join": "open", "members": [bob.user]}
    conv = (await ann.ok("group.create", title="Brief", **fields))["conv"]
    await heard(bob)

    await ann.ok("group.dissolve", conv=conv)

    notice, entry = await heard(bob)
    assert (notice["t"], notice["change"]) == ("conv", "dissolved")
    assert (entry["seq"], entry["body"]["event"]) == (2, "dissolved")
    for peer in (ann, bob, cy):
        for command in ("group.get", "group.join", "group.leave", "group.dissolve"):
            assert (await peer.error(command, conv=conv))["code"] == "not_found", command
        refused = await peer.error("send", conv=conv, key="k", kind="text", body="?")
        assert refused["code"] == "not_found"
        assert (await peer.ok("group.mine"))["groups"] == []
        assert (await peer.ok("group.find"))["groups"] == []
        assert (await peer.ok("sync"))["conversations"] == []


async def test_public_groups_are_found_by_title_with_who_is_online(broker: Broker) -> None:
    ann, bob = await broker.join("ann"), await broker.join("bob")
    away = await broker.user("away")
    await ann.ok("group.create", title="Chess club", visibility="public", members=[away.id])
    await ann.ok("group.create", title="Secret chess", visibility="private")
    await ann.ok("group.create", title="CHESS open", visibility="public", members=[bob.user])
    await ann.ok("group.create", title="Go", visibility="public")

    found = (await bob.ok("group.find", query="chess"))["groups"]

    assert [(g["title"], g["members"], g["online"]) for g in found] == [
        ("Chess club", 2, 1),
        ("CHESS open", 2, 2),
    ]


async def test_the_online_count_of_a_group_at_rest_is_the_same(tmp_path: Path) -> None:
    async with running_broker(tmp_path / "a") as before:
        ann, bob = await before.join("ann"), await before.user("bob")
        await ann.ok("group.create", title="Club", visibility="public", members=[bob.id])
    async with running_broker(tmp_path / "b", store=before.store) as after:
        bob_back = await after.join("bob")

        (group,) = (await bob_back.ok("group.find"))["groups"]

        assert (group["members"], group["online"]) == (2, 1)


async def test_long_lists_come_in_pages(broker: Broker) -> None:
    ann = await broker.join("ann")
    titles = [f"Group {n}" for n in range(5)]
    for title in titles:
        await ann.ok("group.create", title=title, visibility="public")

    for command in ("group.find", "group.mine"):
        seen: list[str] = []
        after = None
        while True:
            page = await ann.ok(command, limit=2, after=after)
            seen += [group["title"] for group in page["groups"]]
            after = page.get("next")
            if after is None:
                break
        assert seen == titles, command
        for mark in ("x", "-1", "", "١"):
            error = await ann.error(command, after=mark)
            assert (error["code"], error["field"]) == ("bad_request", "after")


async def test_a_page_ends_where_the_frame_is_full(tmp_path: Path) -> None:
    async with running_broker(tmp_path, limits__frame_bytes=8192) as broker:
        ann = await broker.join("ann", over="ws-json")
        for n in range(6):
            await ann.ok("group.create", title=f"{n}", visibility="public", about="é" * 1000)

        page = await ann.ok("group.mine")
        rest = await ann.ok("group.mine", after=page["next"])

        assert 0 < len(page["groups"]) < 6
        assert [g["title"] for g in page["groups"] + rest["groups"]] == list("012345")


async def test_mine_are_those_that_i_am_in(broker: Broker) -> None:
    ann, bob = await broker.join("ann"), await broker.join("bob")
    conv = (await ann.ok("group.create", title="Ours", members=[bob.user]))["conv"]
    await ann.ok("group.create", title="Mine")
    await say(ann, conv, "hi")

    assert [(g["title"], g["role"]) for g in (await bob.ok("group.mine"))["groups"]] == [
        ("Ours", "member")
    ]
    assert [(g["title"], g["role"]) for g in (await ann.ok("group.mine"))["groups"]] == [
        ("Ours", "owner"),
        ("Mine", "owner"),
    ]
