"""Followers whose owner is gone, or has begun anew, after words of it were lost: if it was the last
one here that was put out, nobody has a reason to speak to this node of the conversation again."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.cluster import words as w
from actors.cluster.following import DOUBT_S, DOUBTS_AT_ONCE
from broker.commands import groups
from broker.wire import commands as c
from storage.names import slot_of
from tests.actors.cluster.nodes import (
    ClusterNode,
    Owner,
    nodes_of,
    nothing_more,
    one_node,
    send,
    seqs,
)
from tests.helpers.peer import Peer

ANN, BOB = 1, 2
LOOKS_EACH_S = 5


async def group_at(owner: ClusterNode, follower: ClusterNode) -> tuple[str, Peer, Peer]:
    """Ann's, at the owner, with Bob as the only member at the follower."""
    ann, bob = await owner.join(ANN), await follower.join(BOB)
    conv = (await ann.ok("group.create", title="x", members=[BOB]))["conv"]
    assert owner.owns(conv)
    assert await seqs(bob, 1) == [1]
    await trio.sleep(1)
    bob.events.clear()
    return conv, ann, bob


async def told_in_time(bob: Peer, conv: str, *others: Peer) -> list[dict[str, Any]]:
    """What he hears of it, with some time for the link to begin anew."""
    for _ in range(int(2 * DOUBT_S) // LOOKS_EACH_S):
        await trio.sleep(LOOKS_EACH_S)
        for peer in (bob, *others):
            await peer.ok("ping")
    return [event for event in bob.events if event.get("conv") == conv]


@pytest.mark.parametrize("how", ["kick", "dissolve"])
async def test_the_last_one_here_who_is_put_out_while_words_are_lost_learns_of_it(
    autojump_clock: MockClock, how: str
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        n2.node.open_table[c.GroupDissolve] = groups.group_dissolve
        conv, ann, bob = await group_at(n2, n1)
        async with nodes.network.losing(n2.inbox, n1.inbox):
            assert await send(ann, conv, "for Bob too") == [2]
            if how == "kick":
                await ann.ok("group.kick", conv=conv, user=BOB)
            else:
                await ann.ok("group.dissolve", conv=conv)
        assert [event["t"] for event in await told_in_time(bob, conv)] == ["behind"]
        answer = await bob.ask("history", conv=conv, after=1)
        assert answer["t"] == "error"


async def test_likewise_where_the_owner_dies(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2", "n3") as nodes:
        n1, n2, n3 = nodes.running
        ann, bob = await n2.join(ANN), await n1.join(BOB)
        conv = ""
        while not conv or n1.placement._score("n1", slot_of(conv)) > n1.placement._score(
            "n3", slot_of(conv)
        ):
            conv = (await ann.ok("group.create", title="x", members=[BOB]))["conv"]
        await trio.sleep(1)
        await bob.ok("ping")
        bob.events.clear()
        nodes.network.part(n2.inbox, n1.inbox, both=False)
        assert await send(ann, conv, "for Bob too") == [2]
        await ann.ok("group.kick", conv=conv, user=BOB)
        n2.kill()
        await nodes.until(lambda: n3.owns(conv))
        assert [event["t"] for event in await told_in_time(bob, conv)] == ["behind"]


async def test_who_is_taken_up_again_is_not_disturbed(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv, ann, bob = await group_at(n2, n1)
        async with nodes.network.losing(n2.inbox, n1.inbox):
            assert await send(ann, conv, "lost at first") == [2]
        assert await seqs(bob, 1) == [2]
        assert await told_in_time(bob, conv) == []
        await nothing_more([bob], but=("conv",))


async def test_who_learned_of_it_so_and_is_invited_again_is_live(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv, ann, bob = await group_at(n2, n1)
        async with nodes.network.losing(n2.inbox, n1.inbox):
            await ann.ok("group.kick", conv=conv, user=BOB)
        assert await told_in_time(bob, conv, ann)
        assert (await bob.ask("history", conv=conv, after=1))["t"] == "error"
        while conv in n1.cluster.following.followers:
            await trio.sleep(LOOKS_EACH_S)
            await bob.ok("ping")
            await ann.ok("ping")
        bob.events.clear()
        await ann.ok("group.invite", conv=conv, users=[BOB])
        (seq,) = await send(ann, conv, "welcome back")
        assert (await seqs(bob, 2))[-1] == seq


async def test_what_is_about_to_be_taken_up_here_disturbs_nobody(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv, _, bob = await group_at(n2, n1)
        nodes.store.loads.close()
        n2.kill()
        await nodes.until(lambda: n1.owns(conv))
        assert await told_in_time(bob, conv) == []
        nodes.store.loads.open()
        await nodes.until(lambda: n1.node.registry.conversations[conv].loaded)
        await nothing_more([bob], but=("conv",))


async def test_of_many_at_once_clients_are_told_by_and_by() -> None:
    async with one_node() as n:
        bob = await n.join(BOB)
        owner = Owner(n, "in2")
        convs = [f"g/{number}" for number in range(DOUBTS_AT_ONCE + 1)]
        for conv in convs:
            owner.say(w.Join(conv, 1, 1, [BOB], [1], True, False))
        await wait_all_tasks_blocked()
        n.cluster.following.orphan(owner.peer)
        told = []
        for _ in range(2):
            n.cluster.following.look_at_orphans(n.node.now() + 2 * DOUBT_S)
            n.node.flusher.kick()
            await bob.ok("ping")
            told.append([event["conv"] for event in bob.events])
        assert len(told[0]) == DOUBTS_AT_ONCE
        assert sorted(told[1]) == sorted(convs)
