"""What owners say of their conversations: of several, the one that spoke last under the highest
epoch is believed, and words of former owners are passed over."""

from __future__ import annotations

import pytest
from trio.testing import wait_all_tasks_blocked

from actors import flusher
from actors.cluster import words as w
from actors.cluster.following import DOUBT_S, ORPHAN_S
from tests.actors.cluster.nodes import (
    CONV,
    ClusterNode,
    Owner,
    nothing_more,
    one_node,
    payload,
    seqs,
    store_entries,
)
from tests.actors.cluster.test_follower import SlowReads
from tests.helpers.peer import Peer


async def test_a_member_here_is_told_what_the_owner_says() -> None:
    async with one_node() as n:
        ann, bob = await n.join(1), await n.join(2)
        owner = Owner(n, "in2")
        owner.join(1, 4, 2)
        owner.batch(5, 2)
        owner.say(w.Event(CONV, {"t": "read", "seq": 5}))
        assert await seqs(bob, 2) == [5, 6]
        assert (await bob.event())["t"] == "read"
        await nothing_more([ann])
        owner.join(1, 6, 1, whole=False)
        owner.batch(7)
        assert await seqs(ann, 1) == await seqs(bob, 1) == [7]


async def test_of_those_who_are_not_here_nothing_is_kept() -> None:
    async with one_node() as n:
        owner = Owner(n, "in2")
        owner.join(1, 0, 1, 2)
        owner.batch(1)
        assert len(n.cluster.following) == 0


async def test_the_whole_membership_replaces_what_was_known() -> None:
    async with one_node() as n:
        ann, (bob_there, bob) = await n.join(1), await n.join_connection(2)
        owner = Owner(n, "in2")
        owner.join(1, 0, 1, 2)
        owner.join(1, 0, 1)
        owner.batch(1)
        assert await seqs(ann, 1) == [1]
        assert (await bob.event())["t"] == "behind", "the answer to a pull says that they are out"
        assert not bob_there.behind
        await nothing_more([bob])


async def test_who_is_no_member_any_more_is_told_all_up_to_there() -> None:
    async with one_node() as n:
        bob = await n.join(2)
        owner = Owner(n, "in2")
        owner.join(1, 0, 2)
        owner.batch(1)
        owner.say(w.Part(CONV, [2]))
        owner.batch(2)
        assert await seqs(bob, 1) == [1]
        await nothing_more([bob])
        assert len(n.cluster.following) == 0


async def test_words_of_a_former_owner_are_passed_over() -> None:
    async with one_node() as n:
        bob = await n.join(2)
        former, owner = Owner(n, "in2"), Owner(n, "in3")
        former.join(1, 0, 2)
        former.batch(1)
        owner.join(2, 1, 2)
        former.batch(2)
        former.say(
            w.Event(CONV, {"t": "read", "seq": 1}),
            w.Part(CONV, [2]),
            w.Behind(CONV, 9),
            w.Close(CONV),
        )
        former.join(1, 2, 2)
        former.batch(2)
        owner.batch(2)
        event = await bob.event()
        assert event["seq"] == 1
        event = await bob.event()
        assert (event["seq"], event["body"]) == (2, "m2")
        await nothing_more([bob])


async def test_a_new_owner_that_is_ahead_has_the_difference_read() -> None:
    async with one_node() as n:
        bob = await n.join(2)
        Owner(n, "in2").join(1, 1, 2)
        await store_entries(n.nodes.store, CONV, 1, 3)
        owner = Owner(n, "in3")
        owner.join(2, 3, 2)
        owner.batch(4)
        assert await seqs(bob, 3) == [2, 3, 4]


async def test_doubt_is_for_those_alone_of_whom_nobody_knows_what_they_were_told() -> None:
    async with one_node() as n:
        ann, bob = await n.join(1), await n.join(2)
        Owner(n, "in2").join(1, 3, 1)
        owner = Owner(n, "in3")
        owner.join(2, 3, 1, 2, doubt=True)
        event = await bob.event()
        assert (event["t"], event["head"]) == ("behind", 3)
        owner.join(2, 3, 1, 2, doubt=True)
        await nothing_more([ann, bob])
        owner.batch(4)
        assert await seqs(ann, 1) == [4]
        await nothing_more([bob])


async def test_an_owner_that_does_not_know_makes_all_pull() -> None:
    async with one_node() as n:
        bob = await n.join(2)
        owner = Owner(n, "in2")
        owner.join(1, 0, 2)
        owner.say(w.Behind(CONV, 7))
        event = await bob.event()
        assert (event["t"], event["head"]) == ("behind", 7)


async def test_what_is_put_away_need_not_be_followed() -> None:
    async with one_node() as n:
        bob = await n.join(2)
        owner = Owner(n, "in2")
        owner.join(1, 0, 2)
        owner.say(w.Close(CONV))
        owner.batch(1)
        assert len(n.cluster.following) == 0
        assert not n.node.registry.followers_of(2)
        await nothing_more([bob])


async def test_what_is_put_away_while_a_gap_is_read_is_told_before_what_the_next_owner_says() -> (
    None
):
    async with one_node() as n:
        bob = await n.join(2)
        former = Owner(n, "in2")
        former.join(1, 1, 2)
        await store_entries(n.nodes.store, CONV, 1, 5)
        slow = SlowReads(n)
        former.batch(4)
        await wait_all_tasks_blocked()
        former.say(w.Close(CONV))
        owner = Owner(n, "in3")
        owner.join(2, 4, 2)
        owner.batch(5)
        await wait_all_tasks_blocked()
        slow.gate.set()
        assert await seqs(bob, 4) == [2, 3, 4, 5]
        await nothing_more([bob])


async def test_a_follower_whose_owner_is_gone_waits_for_the_next_but_not_for_ever() -> None:
    async with one_node() as n:
        bob = await n.join(2)
        former = Owner(n, "in2")
        former.join(1, 2, 2)
        n.cluster.following.orphan(former.peer)
        former.batch(3)
        n.cluster.following.look_at_orphans(n.node.now() + DOUBT_S / 2)
        owner = Owner(n, "in3")
        owner.join(2, 2, 2, doubt=True)
        owner.batch(3)
        assert await seqs(bob, 1) == [3]
        n.cluster.following.orphan(owner.peer)
        n.cluster.following.look_at_orphans(n.node.now() + 2 * ORPHAN_S)
        assert len(n.cluster.following) == 0


async def taken_up(n: ClusterNode, peer: Peer) -> None:
    await peer.ok("send", conv=CONV, key="mine", kind="text", body="mine")


async def test_what_becomes_this_nodes_own_goes_on_from_what_was_told() -> None:
    async with one_node() as n:
        bob = await n.join(2)
        owner = Owner(n, "in2")
        owner.join(1, 1, 2)
        await store_entries(n.nodes.store, CONV, 1, 3)
        n.own(CONV, 2)
        await taken_up(n, bob)
        assert await seqs(bob, 3) == [2, 3, 4]
        owner.batch(3)
        await nothing_more([bob])
        assert len(n.cluster.following) == 0


async def test_what_becomes_this_nodes_own_while_a_gap_is_read_is_not_told_twice() -> None:
    async with one_node() as n:
        bob = await n.join(2)
        owner = Owner(n, "in2")
        owner.join(1, 1, 2)
        await store_entries(n.nodes.store, CONV, 1, 3)
        slow = SlowReads(n)
        owner.say(w.Join(CONV, 1, 3, [2], [0], False, False))
        await wait_all_tasks_blocked()
        n.own(CONV, 2)
        await taken_up(n, bob)
        slow.gate.set()
        assert await seqs(bob, 3) == [2, 3, 4]
        await nothing_more([bob])


async def test_a_writer_that_hears_of_one_with_a_higher_epoch_has_lost_its_lease() -> None:
    async with one_node() as n:
        bob = await n.join(2)
        n.own(CONV, 2)
        await taken_up(n, bob)
        assert await seqs(bob, 1) == [1]
        before = n.placement.me.incarnation
        Owner(n, "in2").join(2, 1, 2)
        assert n.placement.me.incarnation == before, "an echo of the past"
        Owner(n, "in2").join(3, 1, 2)
        assert n.placement.me.incarnation != before
        assert not n.placement.good()
        assert CONV not in n.node.registry.conversations
        assert (await bob.event())["t"] == "bye", "others may have written since"


async def test_payloads_of_a_batch_are_told_as_the_owner_made_them() -> None:
    async with one_node() as n:
        bob = await n.join(2)
        owner = Owner(n, "in2")
        owner.join(1, 0, 2)
        owner.say(w.Batch(CONV, 1, [payload(1, sender=2, body="x")], [0], [2]))
        event = await bob.event()
        assert (event["t"], event["conv"], event["from"], event["key"]) == ("msg", CONV, 2, "k1")


async def test_a_word_of_the_past_does_no_harm_while_the_conversation_is_yet_to_be_taken_up() -> (
    None
):
    """It has no epoch then; its slot has."""
    async with one_node() as n:
        await n.join(2)
        n.own(CONV, 4)
        before = n.placement.me.incarnation
        n.node.registry.conversation(CONV)
        Owner(n, "in2").join(3, 7, 2, doubt=True)
        assert n.placement.me.incarnation == before
        assert n.placement.good()
        assert CONV in n.node.registry.conversations


async def test_what_is_taken_up_while_its_follower_tells_something_tells_the_rest_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flusher, "SENDS_BEFORE_YIELD", 1)
    async with one_node() as n:
        bobs = [await n.join(2) for _ in range(8)]
        owner = Owner(n, "in2")
        owner.join(1, 1, 2)
        await store_entries(n.nodes.store, CONV, 1, 3)
        n.nodes.store.loads.close()
        n.own(CONV, 2)
        n.node.registry.conversation(CONV)
        await wait_all_tasks_blocked()
        n.nodes.store.loads.open()
        async with n.cluster.delivery:  # as `Cluster.run` has it told
            owner.batch(2)
            await n.node.flusher.flush_turn()
        for bob in bobs:
            assert await seqs(bob, 2) == [2, 3]
        await nothing_more(bobs)
