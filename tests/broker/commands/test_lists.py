"""The list of conversations, what one set for each, and what is unread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from tests.broker.commands.people import heard, say, say_to
from tests.helpers.broker import Broker, running_broker
from tests.helpers.peer import Map, Peer


async def listed(peer: Peer, limit: int = 50) -> list[Map]:
    """The whole list, page by page."""
    found: list[Map] = []
    after = None
    while True:
        page = await peer.ok("conversations", limit=limit, after=after)
        found += page["conversations"]
        after = page.get("next")
        if after is None:
            return found


async def convs(peer: Peer, limit: int = 50) -> list[str]:
    return [conversation["conv"] for conversation in await listed(peer, limit)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The wall clock of brokers made in this test: entries of one moment have no order in lists."""
    moment = [1_763_700_000_000]
    monkeypatch.setattr("actors.node._wall_clock_ms", lambda: moment[0])
    return moment


@pytest.fixture
async def four(broker: Broker, clock: list[int]) -> tuple[Peer, list[Peer], list[str]]:
    """Ann, her friends, and their conversations in the order of their last entry."""
    ann = await broker.join("ann")
    friends = [await broker.join(name) for name in ("bob", "cy", "dan", "eve")]
    names = []
    for friend in friends:
        clock[0] += 1
        names.append(await say_to(friend, ann.user, f"from {friend.user}"))
    return ann, friends, names


Four = tuple[Peer, list[Peer], list[str]]


async def test_an_empty_list(broker: Broker) -> None:
    ann = await broker.join("ann")
    assert await ann.ok("conversations") == {"t": "ok", "id": 2, "conversations": []}
    assert await ann.ok("unread") == {"t": "ok", "id": 3, "total": 0, "conversations": []}


async def test_pinned_first_then_by_the_last_entry(four: Four, clock: list[int]) -> None:
    ann, friends, (bob, cy, dan, eve) = four
    assert await convs(ann) == [eve, dan, cy, bob]

    clock[0] += 1
    await say(friends[1], cy, "again")
    assert await convs(ann) == [cy, eve, dan, bob]

    await ann.ok("conversation.set", conv=bob, pinned=True)
    await ann.ok("conversation.set", conv=dan, pinned=True)
    for limit in (1, 2, 3, 4, 50):
        assert await convs(ann, limit) == [dan, bob, cy, eve]
    await ann.ok("conversation.set", conv=dan, pinned=False)
    assert await convs(ann) == [bob, cy, eve, dan]


async def test_an_item_says_all_that_a_list_shows(broker: Broker) -> None:
    ann, bob = await broker.join("ann"), await broker.join("bob")
    await bob.ok("profile.set", nickname="Bobby", avatar="bob.png")
    direct = await say_to(bob, ann.user, "hi")
    await say(bob, direct, "@ann", mentions=[ann.user])
    await ann.ok("read", conv=direct, seq=1)
    await ann.ok("conversation.set", conv=direct, muted=True, nickname="B.", draft="Dear")
    group = (await bob.ok("group.create", title="Club", avatar="c.png", members=[ann.user]))["conv"]

    items = {item["conv"]: item for item in await listed(ann)}

    item = items[direct]
    last = item.pop("last")
    assert (last["seq"], last["body"], "key" in last) == (2, "@ann", False)
    assert item == {
        "conv": direct,
        "title": "Bobby",
        "avatar": "bob.png",
        "head": 2,
        "read": 1,
        "unread": 1,
        "mentions": 1,
        "muted": True,
        "pinned": False,
        "role": "member",
        "nickname": "B.",
        "draft": "Dear",
    }
    assert {k: items[group][k] for k in ("title", "avatar", "role", "head", "unread")} == {
        "title": "Club",
        "avatar": "c.png",
        "role": "member",
        "head": 1,
        "unread": 0,
    }
    assert [i["role"] for i in await listed(bob) if i["conv"] == group] == ["owner"]


async def test_a_hidden_conversation_comes_back_with_a_new_entry(four: Four) -> None:
    ann, friends, (bob, cy, dan, eve) = four

    hidden = await ann.ok("conversation.set", conv=cy, hidden=True)
    assert hidden["hidden"] is True
    assert await convs(ann) == [eve, dan, bob]
    assert bob in await convs(friends[0])

    await say(friends[1], cy, "are you there?")
    assert cy in await convs(ann)
    await ann.ok("conversation.set", conv=cy, hidden=True)
    await ann.ok("conversation.set", conv=cy, hidden=False)
    assert cy in await convs(ann)


async def test_what_is_set_reaches_the_other_sessions(broker: Broker) -> None:
    ann, phone = await broker.join("ann"), await broker.join("ann", over="ws-json")
    bob = await broker.join("bob")
    conv = await say_to(bob, ann.user, "hi")
    for peer in (ann, phone, bob):
        await heard(peer)

    reply = await ann.ok("conversation.set", conv=conv, draft="Dear Bob", muted=True)

    settings = {k: v for k, v in reply.items() if k not in ("t", "id")}
    assert settings == {
        "conv": conv,
        "muted": True,
        "pinned": False,
        "hidden": False,
        "nickname": "",
        "draft": "Dear Bob",
    }
    assert await heard(phone) == [{"t": "conversation", **settings}]
    assert await heard(ann) == []
    assert await heard(bob) == []


async def test_sessions_that_set_at_once_do_not_undo_each_other(broker: Broker) -> None:
    sessions = [await broker.join("ann") for _ in range(4)]
    bob = await broker.join("bob")
    conv = await say_to(bob, sessions[0].user, "hi")
    fields: list[Map] = [{"muted": True}, {"pinned": True}, {"draft": "d"}, {"nickname": "n"}]

    async with trio.open_nursery() as nursery:
        for session, field in zip(sessions, fields, strict=True):
            nursery.start_soon(set_one, session, conv, field)

    final = await sessions[0].ok("conversation.set", conv=conv)
    assert [final[k] for k in ("muted", "pinned", "draft", "nickname")] == [True, True, "d", "n"]


async def set_one(session: Peer, conv: str, field: Map) -> None:
    await session.ok("conversation.set", conv=conv, **field)


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"conv": "g/77"}, "not_found", "conv"),
        ({"conv": "d/98/99"}, "not_found", "conv"),
        ({"conv": "nonsense"}, "bad_request", "conv"),
        ({"conv": "g/1", "muted": 1}, "bad_request", "muted"),
        ({"conv": "g/1", "draft": "x" * 5000}, "bad_request", "draft"),
    ],
)
async def test_what_cannot_be_set(broker: Broker, fields: Map, code: str, field: str) -> None:
    ann = await broker.join("ann")
    error = await ann.error("conversation.set", **fields)
    assert (error["code"], error["field"]) == (code, field)


@pytest.mark.parametrize("mark", ["", "x", "2:1:g/1", "0:-1:g/1", "0:x:g/1", "1:" + "9" * 30])
async def test_a_mark_that_was_never_given(broker: Broker, mark: str) -> None:
    ann = await broker.join("ann")
    error = await ann.error("conversations", after=mark)
    assert (error["code"], error["field"]) == ("bad_request", "after")


async def test_unread_are_others_messages_past_the_mark(four: Four, clock: list[int]) -> None:
    ann, friends, (bob, cy, dan, eve) = four
    clock[0] += 1
    await say(ann, bob, "mine do not count")
    clock[0] += 1
    await say(friends[1], cy, "two")
    await friends[1].ok("react", conv=cy, ref=1, key="r", emoji="👍")
    await ann.ok("read", conv=dan, seq=1)

    found = await ann.ok("unread")

    assert found["total"] == 4
    assert [(c["conv"], c["unread"], c["read"]) for c in found["conversations"]] == [
        (cy, 2, 0),
        (bob, 1, 0),
        (eve, 1, 0),
    ]
    assert [c["last"]["kind"] for c in found["conversations"]] == ["react", "text", "text"]
    short = await ann.ok("unread", limit=1)
    assert (short["total"], [c["conv"] for c in short["conversations"]]) == (4, [cy])


async def test_a_recalled_message_is_unread_no_more(broker: Broker) -> None:
    ann, bob = await broker.join("ann"), await broker.join("bob")
    conv = await say_to(bob, ann.user, "oops")
    await bob.ok("recall", conv=conv, ref=1, key="r")
    assert (await ann.ok("unread"))["total"] == 0
    (item,) = await listed(ann)
    assert (item["head"], item["unread"], item["last"]["kind"]) == (2, 0, "recall")


async def test_lists_are_the_same_when_nobody_is_awake(tmp_path: Path) -> None:
    async with running_broker(tmp_path / "a") as before:
        ann, bob = await before.join("ann"), await before.join("bob")
        conv = await say_to(bob, ann.user, "0")
        for n in range(1, 30):
            await say(bob if n % 3 else ann, conv, f"{n}", mentions=[ann.user])
        group = await bob.ok("group.create", title="G", members=[ann.user])
        await ann.ok("read", conv=conv, seq=4)
        await ann.ok("conversation.set", conv=group["conv"], pinned=True)
        expected = [await ann.ok(command) for command in ("conversations", "unread")]
    async with running_broker(tmp_path / "b", store=before.store) as after:
        again = await after.join("ann")

        found = [await again.ok(command) for command in ("conversations", "unread")]

        assert [without_id(reply) for reply in found] == [without_id(r) for r in expected]
        assert found[1]["total"] > 10


def without_id(reply: Map) -> dict[str, Any]:
    return {name: value for name, value in reply.items() if name != "id"}


async def test_a_page_ends_where_the_frame_is_full(tmp_path: Path) -> None:
    async with running_broker(
        tmp_path, limits__frame_bytes=8192, limits__body_bytes=4096
    ) as broker:
        ann = await broker.join("ann")
        friends = [await broker.join(f"friend {n}") for n in range(6)]
        names = [await say_to(friend, ann.user, "x" * 3000) for friend in friends]

        page = await ann.ok("conversations")

        assert 0 < len(page["conversations"]) < 6
        assert sorted(await convs(ann)) == sorted(names)
        unread = await ann.ok("unread")
        assert unread["total"] == 6
        assert 0 < len(unread["conversations"]) < 6
