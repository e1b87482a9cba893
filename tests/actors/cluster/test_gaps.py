"""Who comes, pulls or goes while a gap is being read: each is live in the end, or told to pull."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from actors.cluster import words as w
from actors.ledger import Effect
from tests.actors.cluster.nodes import (
    CONV,
    ClusterNode,
    Owner,
    nothing_more,
    one_node,
    pulled,
    send,
    seqs,
    store_entries,
)
from tests.actors.cluster.test_follower import SlowReads

ANN, BOB = 1, 2


async def gap(n: ClusterNode, *users: int) -> tuple[Owner, SlowReads]:
    """These, who are here, lack 2 to 5, which are read from the store when `gate` is set."""
    owner = Owner(n, "in2")
    owner.join(1, 1, *users)
    await store_entries(n.nodes.store, CONV, 1, 5)
    slow = SlowReads(n)
    owner.batch(5)
    await wait_all_tasks_blocked()
    return owner, slow


async def test_who_comes_from_another_node_and_lacks_nothing_is_told_to_pull_and_then_live() -> (
    None
):
    async with one_node() as n:
        bob = await n.join(BOB)
        owner, slow = await gap(n, BOB)
        await n.cluster.here.announce({ANN: False})
        owner.join(1, 5, ANN, whole=False, came={ANN: 1})
        there, ann = await n.join_connection(ANN)
        assert (await ann.ok("sync", cursors={CONV: 5}))["conversations"] == []
        slow.gate.set()
        assert await seqs(bob, 4) == [2, 3, 4, 5]
        assert (await ann.event())["t"] == "behind"
        assert (await ann.ok("sync", cursors={CONV: 5}))["conversations"] == []
        assert not there.behind, "that answer has reached the head"
        owner.batch(6)
        assert await seqs(bob, 1) == await seqs(ann, 1) == [6]


async def test_who_pulled_before_it_was_read_is_told_to_pull_though_it_comes_home() -> None:
    async with one_node() as n:
        (there, ann), bob = await n.join_connection(ANN), await n.join(BOB)
        owner, slow = await gap(n, BOB)
        owner.join(1, 5, ANN, whole=False, came={ANN: 1})
        assert (await ann.event())["t"] == "behind"
        await pulled(n, there, 5, 5)  # which could not make her live yet
        n.own(CONV, 2)
        n.node.registry.conversation(CONV)
        await wait_all_tasks_blocked()
        slow.gate.set()
        assert await seqs(bob, 4) == [2, 3, 4, 5]
        assert (await ann.event())["head"] == 5
        await ann.ok("history", conv=CONV, after=5)
        assert await send(bob, CONV, "six") == [6]
        assert await seqs(bob, 1) == await seqs(ann, 1) == [6]


async def test_who_is_put_out_meanwhile_is_told_to_ask() -> None:
    """They were a member when 2 to 5 were said; the answer to their pull says that they are out."""
    async with one_node() as n:
        ann, bob = await n.join(ANN), await n.join(BOB)
        owner, slow = await gap(n, ANN, BOB)
        owner.say(w.Part(CONV, [BOB]))
        assert (await bob.event())["t"] == "behind"
        slow.gate.set()
        assert await seqs(ann, 4) == [2, 3, 4, 5]
        owner.batch(6)
        assert await seqs(ann, 1) == [6]
        assert not bob.events


async def before_what_waited_is_told(n: ClusterNode, slow: SlowReads, hear: Effect) -> None:
    """The gap was told, and this is heard before what had waited for that."""

    async def as_the_bus_brings_it() -> None:
        async with n.cluster.delivery:
            hear()
            await n.node.flusher.flush_turn()

    async with trio.open_nursery() as nursery, n.cluster.delivery:
        slow.gate.set()
        await wait_all_tasks_blocked()
        nursery.start_soon(as_the_bus_brings_it)
        await wait_all_tasks_blocked()
    await wait_all_tasks_blocked()


async def test_who_is_put_out_before_what_waited_is_told_is_told_to_ask_as_well() -> None:
    async with one_node() as n:
        ann, bob = await n.join(ANN), await n.join(BOB)
        owner, slow = await gap(n, ANN, BOB)
        await before_what_waited_is_told(n, slow, lambda: owner.say(w.Part(CONV, [BOB])))
        assert await seqs(ann, 4) == [2, 3, 4, 5]
        await bob.ok("ping")
        assert [event["t"] for event in bob.events][-1] == "behind"


async def test_what_the_next_owner_says_does_not_overtake_what_waited() -> None:
    async with one_node() as n:
        ann = await n.join(ANN)
        former, slow = await gap(n, ANN)
        owner = Owner(n, "in3")

        def changes_hands() -> None:
            former.say(w.Close(CONV))
            owner.join(2, 5, ANN)
            owner.batch(6)

        await before_what_waited_is_told(n, slow, changes_hands)
        assert await seqs(ann, 5) == [2, 3, 4, 5, 6]
        await nothing_more([ann])


async def test_a_follower_that_has_ended_makes_nobody_deaf_to_the_next() -> None:
    async with one_node() as n:
        (there, ann), _bob = await n.join_connection(ANN), await n.join(BOB)
        owner, slow = await gap(n, BOB)
        owner.join(1, 5, ANN, whole=False, came={ANN: 1})
        await pulled(n, there, 5, 5)
        owner.say(w.Part(CONV, [ANN, BOB]))
        owner.join(1, 5, ANN)
        owner.say(w.Behind(CONV, 5))
        await wait_all_tasks_blocked()
        slow.gate.set()
        await pulled(n, there, 5, 5)
        owner.batch(6)
        await ann.ok("ping")
        assert [event["seq"] for event in ann.events if event["t"] == "msg"] == [6]
