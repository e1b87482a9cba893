"""Coming, going and roles: who may do what, what everybody is told, and when it takes effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.broker.commands.people import entries_heard, heard, say, seqs
from tests.helpers.broker import Broker, running_broker
from tests.helpers.peer import Map, Peer

ROLES = ("owner", "admin", "member", "public", "private")
"""The last two are outsiders: of a public and of a private group."""

MATRIX = {
    "group.get": "ok ok ok ok not_found",
    "group.members": "ok ok ok forbidden not_found",
    "group.join": "conflict conflict conflict forbidden not_found",
    "group.set": "ok ok forbidden forbidden not_found",
    "group.invite": "ok ok forbidden forbidden not_found",
    "kick a member": "ok ok forbidden forbidden not_found",
    "kick an admin": "ok forbidden forbidden forbidden not_found",
    "kick the owner": "bad_request forbidden forbidden forbidden not_found",
    "kick a stranger": "not_found not_found forbidden forbidden not_found",
    "promote a member": "ok forbidden forbidden forbidden not_found",
    "demote an admin": "ok forbidden forbidden forbidden not_found",
    "change the owner's role": "bad_request forbidden forbidden forbidden not_found",
    "promote a stranger": "not_found forbidden forbidden forbidden not_found",
    "transfer to a member": "ok forbidden forbidden forbidden not_found",
    "transfer to the owner": "bad_request forbidden forbidden forbidden not_found",
    "transfer to a stranger": "not_found forbidden forbidden forbidden not_found",
    "group.leave": "forbidden ok ok forbidden not_found",
    "group.dissolve": "ok forbidden forbidden forbidden not_found",
    "send": "ok ok ok forbidden not_found",
}


@pytest.mark.parametrize("deed", MATRIX)
async def test_who_may_do_what(tmp_path: Path, deed: str) -> None:
    for role, expected in zip(ROLES, MATRIX[deed].split(), strict=True):
        async with running_broker(tmp_path / role) as broker:
            cast = {name: await broker.user(name) for name in ("second", "plain", "stranger")}
            names = {"owner": "ann", "admin": "second", "member": "third"}
            third = await broker.user("third")
            ann = await broker.join("ann")
            made = await ann.ok(
                "group.create",
                title="x",
                visibility="private" if role == "private" else "public",
                members=[cast["second"].id, cast["plain"].id, third.id],
            )
            other_admin = await broker.user("plain admin")
            await ann.ok("group.invite", conv=made["conv"], users=[other_admin.id])
            for admin in (cast["second"].id, other_admin.id):
                await ann.ok("group.role", conv=made["conv"], user=admin, role="admin")
            actor = ann if role == "owner" else await broker.join(names.get(role, "stranger"))
            users = {
                "a member": cast["plain"].id,
                "an admin": other_admin.id,
                "the owner": ann.user,
                "a stranger": cast["stranger"].id + 100,
            }

            reply = await act(actor, deed, made["conv"], users, newcomer=cast["stranger"].id)

            assert reply.get("code", "ok") == expected, f"{role}: {reply}"


async def act(peer: Peer, deed: str, conv: str, users: dict[str, int], newcomer: int) -> Map:
    whom = next((user for name, user in users.items() if deed.endswith(name)), 0)
    match deed.split():
        case ["kick", *_]:
            return await peer.ask("group.kick", conv=conv, user=whom)
        case ["promote", *_]:
            return await peer.ask("group.role", conv=conv, user=whom, role="admin")
        case ["demote", *_]:
            return await peer.ask("group.role", conv=conv, user=whom, role="member")
        case ["change", *_]:
            return await peer.ask("group.role", conv=conv, user=users["the owner"], role="member")
        case ["transfer", *_]:
            return await peer.ask("group.transfer", conv=conv, user=whom)
        case ["group.invite"]:
            return await peer.ask("group.invite", conv=conv, users=[newcomer])
        case ["group.set"]:
            return await peer.ask("group.set", conv=conv, title="y")
        case ["send"]:
            return await peer.ask("send", conv=conv, key="k", kind="text", body="hi")
        case [command]:
            return await peer.ask(command, conv=conv)
        case _:
            raise AssertionError(deed)


async def room(broker: Broker, **fields: object) -> tuple[Peer, Peer, Peer, str]:
    """Ann's group with bob; cy looks on from outside."""
    ann, bob, cy = [await broker.join(name) for name in ("ann", "bob", "cy")]
    settings = {"visibility": "public", "join": "open", "members": [bob.user]} | fields
    conv = (await ann.ok("group.create", title="Room", **settings))["conv"]
    for peer in (ann, bob):
        await heard(peer)
    return ann, bob, cy, conv


async def test_who_joins_reads_that_they_joined_and_what_follows(broker: Broker) -> None:
    ann, bob, cy, conv = await room(broker)
    await say(ann, conv, "before")

    joined = await cy.ok("group.join", conv=conv)
    await say(bob, conv, "after")

    assert (joined["seq"], joined["role"], joined["members"], joined["title"]) == (
        3,
        "member",
        3,
        "Room",
    )
    notice, entry, message = await heard(cy)
    assert (notice["t"], notice["change"], notice["users"]) == ("conv", "joined", [cy.user])
    assert entry["body"] == {"event": "joined", "users": [cy.user], "by": cy.user, "title": "Room"}
    assert (message["seq"], message["body"]) == (4, "after")
    assert seqs(await entries_heard(ann)) == [2, 3, 4]
    assert seqs((await cy.ok("history", conv=conv, after=0))["entries"]) == [1, 2, 3, 4]


async def test_where_history_begins_with_joining_nothing_earlier_is_shown(broker: Broker) -> None:
    ann, bob, cy, conv = await room(broker, history="joined")
    await say(ann, conv, "before")

    await cy.ok("group.join", conv=conv)
    await say(bob, conv, "after")

    assert seqs((await cy.ok("history", conv=conv, after=0))["entries"]) == [3, 4]
    assert seqs((await cy.ok("history", conv=conv))["entries"]) == [3, 4]
    assert (await cy.error("message", conv=conv, seq=2))["code"] == "not_found"
    (found,) = (await cy.ok("sync"))["conversations"]
    assert (seqs(found["entries"]), found["unread"], found["more"]) == ([3, 4], 1, False)


async def test_who_has_left_is_told_the_truth_about_what_they_sent_before(broker: Broker) -> None:
    ann, bob = await broker.join("ann"), await broker.join("bob")
    user = (await broker.user("bob")).id
    conv = (await ann.ok("group.create", title="x", members=[user]))["conv"]
    sent = {"conv": conv, "key": "k", "kind": "text", "body": "hi"}
    seq = (await bob.ok("send", **sent))["seq"]
    react = {"conv": conv, "ref": seq, "key": "r", "emoji": "+1", "on": True}
    reacted = (await bob.ok("react", **react))["seq"]
    await bob.ok("group.leave", conv=conv)
    assert (await bob.ok("send", **sent))["seq"] == seq, "asked again, its answer was lost perhaps"
    assert (await bob.ok("react", **react))["seq"] == reacted
    assert (await bob.error("send", **{**sent, "key": "k2"}))["code"] == "not_found"


async def test_who_leaves_reads_that_they_left_and_no_more(broker: Broker) -> None:
    ann, bob, _, conv = await room(broker)
    second = await broker.join("bob", over="ws-json")

    left = await bob.ok("group.leave", conv=conv)
    await say(ann, conv, "psst")

    assert left["seq"] == 2
    for connection in (bob, second):
        notice, entry = await heard(connection)
        assert (notice["change"], entry["seq"]) == ("left", 2)
        assert entry["body"] == {"event": "left", "users": [bob.user], "by": bob.user}
        for command in ("history", "group.members", "typing", "group.leave"):
            assert (await connection.error(command, conv=conv))["code"] == "forbidden"
        assert (await connection.ok("sync"))["conversations"] == []
    assert seqs(await entries_heard(ann)) == [2, 3]


async def test_somebody_away_finds_what_changed_when_they_come(broker: Broker) -> None:
    ann, _, _, conv = await room(broker)
    dan = await broker.user("dan")
    await ann.ok("group.invite", conv=conv, users=[dan.id])
    await say(ann, conv, "welcome")

    there = await broker.join("dan")

    (found,) = (await there.ok("sync", cursors={conv: 1}))["conversations"]
    assert [e["body"] for e in found["entries"]] == [
        {"event": "joined", "users": [dan.id], "by": ann.user, "title": "Room"},
        "welcome",
    ]
    assert await say(there, conv, "thanks") == 4


async def test_an_invitation_passes_over_those_who_are_in(broker: Broker) -> None:
    ann, bob, cy, conv = await room(broker)

    first = await bob.ok("group.invite", conv=conv, users=[cy.user, ann.user, cy.user])
    again = await bob.ok("group.invite", conv=conv, users=[cy.user])

    assert (first["users"], first["seq"]) == ([cy.user], 2)
    assert (again["users"], "seq" in again) == ([], False)
    assert seqs(await entries_heard(cy)) == [2]


async def test_an_invitation_of_nobody_changes_nothing(broker: Broker) -> None:
    ann, _, cy, conv = await room(broker)

    error = await ann.error("group.invite", conv=conv, users=[cy.user, 4711])

    assert (error["code"], error["field"]) == ("not_found", "users")
    assert "4711" in error["message"]
    assert (await ann.ok("group.get", conv=conv))["members"] == 2
    assert (await ann.error("group.invite", conv=conv, users=[]))["field"] == "users"


async def test_a_full_group_takes_nobody(tmp_path: Path) -> None:
    async with running_broker(tmp_path, limits__group_members=3) as broker:
        ann, _, cy, conv = await room(broker)
        dan = await broker.join("dan")

        both = await ann.error("group.invite", conv=conv, users=[cy.user, dan.user])
        assert (both["code"], both["field"]) == ("too_large", "users")
        await cy.ok("group.join", conv=conv)
        assert (await dan.error("group.join", conv=conv))["code"] == "too_large"


@pytest.mark.parametrize("join", ["invite", "approval"])
async def test_a_group_that_is_not_open_says_whom_to_ask(broker: Broker, join: str) -> None:
    _, _, cy, conv = await room(broker, join=join)

    error = await cy.error("group.join", conv=conv)

    assert error["code"] == "forbidden"
    assert "invite" in error["message"]


async def test_roles_and_the_group_change_hands(broker: Broker) -> None:
    ann, bob, cy, conv = await room(broker)
    await cy.ok("group.join", conv=conv)

    await ann.ok("group.role", conv=conv, user=bob.user, role="admin")
    same = await ann.ok("group.role", conv=conv, user=bob.user, role="admin")
    await ann.ok("group.transfer", conv=conv, user=cy.user)

    assert "seq" not in same
    assert [entry["body"] for entry in await entries_heard(bob)][1:] == [
        {"event": "role", "users": [bob.user], "by": ann.user, "role": "admin"},
        {"event": "transferred", "users": [cy.user], "by": ann.user},
    ]
    listed = (await bob.ok("group.members", conv=conv))["members"]
    assert [(m["name"], m["role"], m["online"]) for m in listed] == [
        ("ann", "admin", True),
        ("bob", "admin", True),
        ("cy", "owner", True),
    ]
    await cy.ok("group.kick", conv=conv, user=ann.user)
    assert (await ann.error("group.get", conv="g/999"))["code"] == "not_found"


async def test_a_role_survives_a_restart(tmp_path: Path) -> None:
    async with running_broker(tmp_path / "a") as before:
        ann, bob, _, conv = await room(before, history="joined")
        await ann.ok("group.role", conv=conv, user=bob.user, role="admin")
    async with running_broker(tmp_path / "b", store=before.store) as after:
        bob = await after.join("bob")

        assert (await bob.ok("group.get", conv=conv))["role"] == "admin"
        assert seqs((await bob.ok("history", conv=conv, after=0))["entries"]) == [1, 2]


async def test_the_last_one_out_ends_the_group(broker: Broker) -> None:
    ann, bob, cy, conv = await room(broker)

    assert "transfer" in (await ann.error("group.leave", conv=conv))["message"]
    await bob.ok("group.leave", conv=conv)
    await ann.ok("group.leave", conv=conv)

    assert (await cy.error("group.join", conv=conv))["code"] == "not_found"
    assert (await cy.ok("group.find"))["groups"] == []


async def test_members_come_in_pages_by_id(broker: Broker) -> None:
    ann, bob, cy, conv = await room(broker)
    await cy.ok("group.join", conv=conv)
    await cy.ok("profile.set", nickname="Cyrano", show_online="nobody")

    first = await ann.ok("group.members", conv=conv, limit=2)
    second = await ann.ok("group.members", conv=conv, limit=2, after=first["next"])

    assert [m["user"] for m in first["members"]] == [ann.user, bob.user]
    assert [(m["user"], m["nickname"], m["online"]) for m in second["members"]] == [
        (cy.user, "Cyrano", False)
    ]
    assert "next" not in second


async def test_replies_on_one_group_come_in_the_order_of_the_commands(broker: Broker) -> None:
    """Those that look into the store too, and they see what the ones before them did."""
    ann, bob, cy, conv = await room(broker)

    ids = [
        await ann.send("group.kick", conv=conv, user=bob.user),
        await ann.send("group.members", conv=conv),
        await ann.send("group.invite", conv=conv, users=[cy.user]),
        await ann.send("group.members", conv=conv),
        await ann.send("send", conv=conv, key="k", kind="text", body="done"),
    ]
    replies: list[Map] = []
    while len(replies) < len(ids):
        frame = await ann.carrier.receive()
        if "id" in frame:
            replies.append(frame)

    assert [reply["id"] for reply in replies] == ids
    assert [m["user"] for m in replies[1]["members"]] == [ann.user]
    assert [m["user"] for m in replies[3]["members"]] == [ann.user, cy.user]
