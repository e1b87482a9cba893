"""Clients on different nodes: nothing that they see tells them that there is more than one.

What single commands do in a cluster, tests/broker/commands tells: all its stories are played there
with each connection on the next node. Here is what only shows between nodes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from broker.security.tokens import Tokens, hash_refresh, new_refresh, new_session_id
from storage.records import Session
from tests.broker.commands.people import heard, say, say_to, seqs
from tests.helpers.broker import SECRET
from tests.helpers.cluster import Brokers, Member, running_cluster
from tests.helpers.peer import Map, Peer

WIRES = ("tcp", "ws", "ws-json")


@pytest.fixture
async def brokers(tmp_path: Path) -> AsyncIterator[Brokers]:
    async with running_cluster(tmp_path, presence__coalesce_ms=20) as brokers:
        yield brokers


async def group_on(member: Member, *names: str) -> tuple[str, list[int]]:
    """A group that this node writes, of these users; its maker is nobody else."""
    users = [(await member.user(name)).id for name in names]
    maker = await member.join("maker")
    conv = (await maker.ok("group.create", title="x", members=users, join="open"))["conv"]
    assert member.owns(conv), "who is asked to make a group writes it"
    return conv, users


@pytest.mark.parametrize("over", WIRES)
@pytest.mark.parametrize("owner", [0, 1, 2])
async def test_each_wire_and_each_owner_alike(brokers: Brokers, owner: int, over: str) -> None:
    """One client on each node, and the conversation on any: all hear the same, in one order."""
    conv, _ = await group_on(brokers[owner], "ann", "bob", "cy")
    peers = [await brokers[n].join(name, over=over) for n, name in enumerate(("ann", "bob", "cy"))]
    ann, bob, cy = peers
    first = await say(ann, conv, "one")
    assert (await bob.error("edit", conv=conv, key="no", ref=first, body="x"))["code"] == (
        "forbidden"
    )
    await ann.ok("edit", conv=conv, key="e", ref=first, body="two")
    await bob.ok("react", conv=conv, key="r", ref=first, emoji="+1")
    await ann.ok("recall", conv=conv, key="c", ref=first)
    last = await say(cy, conv, "three", reply_to=first, mentions=[bob.user])
    stories = []
    for peer in peers:
        entries: list[Map] = []
        while not entries or entries[-1]["seq"] < last:
            entries.append(await peer.event("msg"))
        assert seqs(entries) == list(range(first, last + 1))
        own = [entry["seq"] for entry in entries if "key" in entry]
        assert own == [entry["seq"] for entry in entries if entry["from"] == peer.user]
        stories.append([{k: v for k, v in entry.items() if k != "key"} for entry in entries])
    assert stories[0] == stories[1] == stories[2]
    for peer in peers:
        page = await peer.ok("history", conv=conv, after=first - 1)
        assert [entry["kind"] for entry in page["entries"]] == [
            "text",
            "edit",
            "react",
            "recall",
            "text",
        ]
        assert page["entries"][0]["recalled"]
        found = await peer.ok("message", conv=conv, seq=last)
        assert found["entry"]["mentions"] == [bob.user]


async def test_replies_keep_the_order_of_many_commands_in_flight(brokers: Brokers) -> None:
    conv, _ = await group_on(brokers[1], "ann")
    ann = await brokers[0].join("ann")
    asked: list[tuple[int, str]] = []
    for n in range(300):
        kind = ("send", "history", "read", "message", "typing")[n % 5]
        choices: dict[str, dict[str, Any]] = {
            "send": {"key": f"k{n}", "kind": "text", "body": f"{n}"},
            "history": {"limit": 3},
            "read": {"seq": n},
            "message": {"seq": 1},
            "typing": {},
        }
        asked.append((await ann.send(kind, conv=conv, **choices[kind]), kind))
    answered: list[int] = []
    head = 1
    while len(answered) < len(asked):
        message = await ann.carrier.receive()
        if "id" in message:
            answered.append(message["id"])
            assert message["t"] == "ok"
            if "seq" in message:
                head += 1
                assert message["seq"] == head
            elif "entries" in message:
                assert message["head"] <= head, "it sees nothing that was said after it"
    assert answered == [id_ for id_, _ in asked]


async def test_who_reads_is_told_on_their_other_connections_and_not_on_that_one(
    brokers: Brokers,
) -> None:
    conv, _ = await group_on(brokers[0], "ann", "bob")
    here, there, bob = [
        await brokers[n].join(name) for n, name in ((1, "ann"), (2, "ann"), (1, "bob"))
    ]
    seq = await say(bob, conv, "x")
    for peer in (here, there, bob):
        await peer.event("msg")
    await here.ok("read", conv=conv, seq=seq)
    for peer in (there, bob):
        event = await peer.event("read")
        assert (event["user"], event["seq"]) == (here.user, seq)
    await here.ok("delivered", conv=conv, seq=seq)
    await here.ok("typing", conv=conv)
    assert (await there.event())["t"] == "typing", "delivered was so already"
    assert (await bob.event())["user"] == here.user
    assert await heard(here) == []
    found = await bob.ok("message", conv=conv, seq=seq)
    assert found["readers"] == [here.user]


async def test_a_sender_reads_their_key_on_every_node(brokers: Brokers) -> None:
    conv, _ = await group_on(brokers[0], "ann", "bob")
    here, there, bob = [
        await brokers[n].join(name) for n, name in ((1, "ann"), (2, "ann"), (2, "bob"))
    ]
    await here.ok("send", conv=conv, key="mine", kind="text", body="x")
    assert (await here.event("msg"))["key"] == (await there.event("msg"))["key"] == "mine"
    assert "key" not in await bob.event("msg")
    again = await there.ok("send", conv=conv, key="mine", kind="text", body="x")
    assert again["seq"] == 2
    assert (await there.error("send", conv=conv, key="mine", kind="text", body="y"))["code"] == (
        "conflict"
    )


async def test_settings_of_a_conversation_are_told_to_the_users_other_sessions(
    brokers: Brokers,
) -> None:
    conv, _ = await group_on(brokers[0], "ann")
    here, there = await brokers[1].join("ann"), await brokers[2].join("ann")
    await here.ok("conversation.set", conv=conv, pinned=True, draft="hm")
    event = await there.event()
    assert (event["t"], event["conv"], event["pinned"], event["draft"]) == (
        "conversation",
        conv,
        True,
        "hm",
    )
    (found,) = (await there.ok("conversations"))["conversations"]
    assert (found["pinned"], found["draft"]) == (True, "hm")


async def test_who_was_kicked_on_another_node_hears_nothing_later(brokers: Brokers) -> None:
    conv, (_, bob_id) = await group_on(brokers[0], "ann", "bob")
    maker = await brokers[2].join("maker")
    bob = await brokers[1].join("bob")
    await say(maker, conv, "before")
    await maker.ok("group.kick", conv=conv, user=bob_id)
    for n in range(20):
        await say(maker, conv, f"after {n}")
    events = await heard(bob)
    entries = [event for event in events if event["t"] == "msg"]
    assert [entry["kind"] for entry in entries] == ["text", "system"]
    assert entries[-1]["body"]["event"] == "kicked"
    assert (await bob.error("history", conv=conv))["code"] in ("not_found", "forbidden")
    await maker.ok("group.invite", conv=conv, users=[bob_id])
    assert [event["t"] for event in await heard(bob)] == ["conv", "msg"]
    await say(maker, conv, "again")
    assert (await bob.event("msg"))["body"] == "again"


async def test_who_is_behind_on_another_node_pulls_and_is_live_again(brokers: Brokers) -> None:
    conv, _ = await group_on(brokers[0], "ann", "bob")
    ann, bob = await brokers[2].join("ann"), await brokers[1].join("bob")
    await say(ann, conv, "one")
    assert (await bob.event("msg"))["seq"] == 2
    registry = brokers[1].node.registry
    (connection,) = registry.connections_of(bob.user)
    live = registry.live(conv)
    assert live is not None
    connection.fall_behind(live)
    await say(ann, conv, "two")
    await say(ann, conv, "three")
    assert [event["t"] for event in await heard(bob)] == ["behind"]
    page = await bob.ok("history", conv=conv, after=2, limit=1)
    assert seqs(page["entries"]) == [3]
    await say(ann, conv, "four")
    assert await heard(bob) == [], "it has not reached the head"
    page = await bob.ok("history", conv=conv, after=3)
    assert seqs(page["entries"]) == [4, 5]
    await say(ann, conv, "five")
    assert (await bob.event())["seq"] == 6


async def test_a_slow_reader_on_another_node_falls_behind_alone(tmp_path: Path) -> None:
    marks: dict[str, Any] = {"outbox__soft_bytes": 20_000, "outbox__high_bytes": 40_000}
    async with running_cluster(tmp_path, nodes=2, **marks) as brokers:
        conv, _ = await group_on(brokers[0], "ann", "bob", "cy")
        ann, bob, cy = [
            await brokers[n].join(name) for n, name in ((0, "ann"), (1, "bob"), (1, "cy"))
        ]
        counters = brokers[1].node.counters
        text = "x" * 8_000
        sent = 0
        async with trio.open_nursery() as nursery:

            async def read_on() -> None:
                expected = 2
                while True:
                    assert (await cy.event("msg"))["seq"] == expected
                    expected += 1

            nursery.start_soon(read_on)
            while not counters.behind:
                await say(ann, conv, text)
                ann.events.clear()
                sent += 1
                assert sent < 5_000
            nursery.cancel_scope.cancel()
        have = 1
        while have < 1 + sent:
            event = await bob.event()
            if event["t"] == "msg":
                assert event["seq"] == have + 1
                have += 1
            elif event["t"] == "behind":
                while have < 1 + sent:
                    page = await bob.ok("history", conv=conv, after=have)
                    have = page["entries"][-1]["seq"]
        bob.events.clear()
        last = await say(ann, conv, "live")
        assert (await bob.event("msg"))["seq"] == last


async def test_sync_and_lists_know_what_other_nodes_have_in_hand(brokers: Brokers) -> None:
    convs = [(await group_on(member, "ann", "bob"))[0] for member in brokers.members]
    ann, bob = await brokers[0].join("ann"), await brokers[1].join("bob")
    for n, conv in enumerate(convs):
        for k in range(n + 1):
            await say(ann, conv, f"{k}")
    synced = (await bob.ok("sync", cursors={}))["conversations"]
    assert {item["conv"]: (item["head"], item["unread"]) for item in synced} == {
        conv: (n + 2, n + 1) for n, conv in enumerate(convs)
    }
    listed = (await bob.ok("conversations"))["conversations"]
    times = [item["last"]["ts"] for item in listed]
    assert times == sorted(times, reverse=True), "the last that was written to first"
    assert {item["conv"]: item["last"]["body"] for item in listed} == {
        conv: str(n) for n, conv in enumerate(convs)
    }
    unread = (await bob.ok("unread"))["conversations"]
    assert {item["conv"] for item in unread} == set(convs)


async def change(peer: Peer) -> list[Map]:
    users: list[Map] = (await peer.event("presence"))["users"]
    return users


async def test_watchers_see_who_comes_goes_and_hides_on_other_nodes(brokers: Brokers) -> None:
    ann = await brokers[0].join("ann")
    bob_id = (await brokers[0].user("bob")).id
    assert (await ann.ok("presence.watch", users=[bob_id]))["users"] == [
        {"user": bob_id, "online": False}
    ]
    bob = await brokers[1].join("bob")
    assert await change(ann) == [{"user": bob_id, "online": True}]
    second = await brokers[2].join("bob")
    await bob.aclose()
    await wait_all_tasks_blocked(0.05)
    states = [state for event in await heard(ann) for state in event["users"]]
    assert all(state["online"] for state in states), "there is a session elsewhere"
    await second.ok("profile.set", show_online="nobody")
    assert await change(ann) == [{"user": bob_id, "online": False}]
    (state,) = (await ann.ok("presence.get", users=[bob_id]))["users"]
    assert state == {"user": bob_id, "online": False}
    third = await brokers[1].join("bob")
    await third.aclose()
    await second.ok("profile.set", status="back", show_online="everyone")
    (seen,) = await change(ann)
    assert (seen["online"], seen["status"]) == (True, "back")
    await second.aclose()
    (gone,) = await change(ann)
    assert not gone["online"]
    assert gone["last_seen"] > 1_700_000_000_000


async def test_a_direct_message_tells_whether_the_other_is_online_anywhere(
    brokers: Brokers,
) -> None:
    bob_id = (await brokers[0].user("bob")).id
    ann = await brokers[0].join("ann")
    conv = await say_to(ann, bob_id, "anybody?")

    async def online() -> bool:
        reply = await ann.ok("send", conv=conv, key=f"k{trio.current_time()}", kind="text", body="")
        return bool(reply["online"])

    assert not await online()
    for member in brokers.members:
        bob = await member.join("bob")
        assert await online()
        await bob.ok("profile.set", show_online="nobody")
        assert not await online()
        await bob.ok("profile.set", show_online="everyone")
        await bob.aclose()
        await brokers.until(
            lambda: not any(m.node.registry.online(bob_id) for m in brokers.members)
        )
        assert not await online()


async def test_a_session_that_is_ended_on_one_node_is_cut_on_the_others(brokers: Brokers) -> None:
    user = await brokers[0].user("ann")
    refresh, sid = new_refresh(), new_session_id()
    session = Session(
        id=sid, user=user.id, token_hash=hash_refresh(refresh), created=0, expires=2**53
    )
    await brokers.store.create_session(session)
    token, _ = Tokens(SECRET, 3_600).issue(user.id, sid, user.generation)
    victims = []
    for member in brokers.members:
        victim = await member.tcp()
        await victim.hello(token)
        victims.append(victim)
    bystander = await brokers[1].join("ann")
    thief = await brokers[0].tcp()
    await thief.ok("refresh", refresh=refresh)
    assert (await thief.error("refresh", refresh=refresh))["code"] == "unauthenticated"
    with trio.fail_after(10):
        for victim in victims:
            assert (await victim.event("bye"))["code"] == "session_revoked"
    await bystander.ok("ping")


class Chatter:
    """One who writes and reads without a pause, and checks everything that comes."""

    def __init__(self, peer: Peer, convs: list[str]) -> None:
        self.peer = peer
        self.convs = convs
        self.sent = 0
        self.heard: dict[str, int] = dict.fromkeys(convs, 0)
        self.stop = False
        self.stopped = trio.Event()

    async def run(self) -> None:
        """Refusals, holes, doublets, `behind` and goodbyes fail the test."""
        while not self.stop:
            for conv in self.convs:
                self.sent += 1
                key = f"{self.peer.user}-{self.sent}"
                await self.peer.ok("send", conv=conv, key=key, kind="text", body=key)
                self.check()
            await trio.sleep(0.002)
        self.stopped.set()

    def check(self) -> None:
        while self.peer.events:
            event = self.peer.events.popleft()
            if event["t"] == "msg":
                self.heard[event["conv"]] += 1
                assert event["seq"] == self.heard[event["conv"]], event
            else:
                assert event["t"] in ("presence", "conv"), event


async def chat(brokers: Brokers, nursery: trio.Nursery, members: list[Member]) -> list[Chatter]:
    """Two on different nodes, in many conversations, so that all nodes have some."""
    names = [f"other {n}" for n in range(12)]
    ann_id, bob_id = [(await brokers[0].user(name)).id for name in ("ann", "bob")]
    convs = [f"d/{ann_id}/{bob_id}"]
    maker = await brokers[0].join("maker")
    for _ in names:
        made = await maker.ok("group.create", title="x", members=[ann_id, bob_id])
        convs.append(made["conv"])
    ann, bob = await members[0].join("ann"), await members[1].join("bob")
    chatters = [Chatter(ann, convs), Chatter(bob, convs)]
    for chatter in chatters:
        chatter.heard.update(dict.fromkeys(convs[1:], 1))  # the making of the group
        nursery.start_soon(chatter.run)
    await maker.aclose()
    return chatters


async def finish(brokers: Brokers, chatters: list[Chatter]) -> int:
    """All that was acknowledged has been heard by both, once and in order."""
    await trio.sleep(0.1)
    for chatter in chatters:
        chatter.stop = True
        await chatter.stopped.wait()
    sent = 0
    with trio.fail_after(20):
        for chatter in chatters:
            for conv in chatter.convs:
                (head,) = (await brokers.store.heads([conv])).values()
                while chatter.heard[conv] < head.seq:
                    await chatter.peer.ok("ping")
                    chatter.check()
            sent += chatter.sent
    total = sum(chatters[0].heard.values()) - (len(chatters[0].convs) - 1)
    assert total == sent
    return sent


async def test_conversations_move_under_load_without_a_refusal_or_a_loss(tmp_path: Path) -> None:
    async with (
        running_cluster(tmp_path, nodes=2, lease_ms=1_000) as brokers,
        trio.open_nursery() as nursery,
    ):
        chatters = await chat(brokers, nursery, brokers.members)
        await trio.sleep(0.1)
        third = await brokers.start()
        await brokers.settled()
        owned = [conv for conv in chatters[0].convs if third.owns(conv)]
        assert owned, "some have moved"
        await trio.sleep(0.1)
        await brokers.drain(third)
        await brokers.settled()
        assert await finish(brokers, chatters) > 100
        nursery.cancel_scope.cancel()


async def test_a_node_that_is_drained_sends_its_own_away_and_nobody_else_notices(
    tmp_path: Path,
) -> None:
    async with (
        running_cluster(tmp_path, nodes=3, lease_ms=1_000, connections__drain_ms=500) as brokers,
        trio.open_nursery() as nursery,
    ):
        leaving, *others = brokers.members
        own = await leaving.join("cy")
        chatters = await chat(brokers, nursery, others)
        owned = [conv for conv in chatters[0].convs if leaving.owns(conv)]
        assert owned
        await trio.sleep(0.1)
        nursery.start_soon(brokers.drain, leaving)
        bye = await own.event("bye")
        assert (bye["code"], bye["reconnect"]) == ("draining", True)
        await leaving.done.wait()
        started = trio.current_time()
        again = await others[0].join("cy")
        assert trio.current_time() - started < 1.0, "nobody waits for who has left"
        await brokers.settled()
        await finish(brokers, chatters)
        await again.ok("ping")
        nursery.cancel_scope.cancel()


async def test_a_node_that_dies_costs_no_more_than_a_wait(tmp_path: Path) -> None:
    """Its conversations go on; what was acknowledged is there; nothing comes twice."""
    async with running_cluster(tmp_path, nodes=3, lease_ms=1_000) as brokers:
        dying, *others = brokers.members
        conv, _ = await group_on(dying, "ann", "bob")
        ann, bob = await others[0].join("ann"), await others[1].join("bob")
        for n in range(10):
            assert await say(ann, conv, f"{n}") == n + 2
        await brokers.kill(dying)
        started = trio.current_time()
        assert await say(bob, conv, "still there?") == 12
        assert trio.current_time() - started < 3.0
        for peer in (ann, bob):
            have = 1
            while have < 12:
                event = await peer.event()
                if event["t"] == "behind":
                    page = await peer.ok("history", conv=conv, after=have)
                    have += len(page["entries"])
                elif event["t"] == "msg":
                    have += 1
                    assert event["seq"] == have
