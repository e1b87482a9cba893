"""Leases and slots: a node stops believing in itself before others stop, and a slot has one writer.

Nothing of this is told by sleeping: the clock jumps.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.cluster.placement import BEATS_PER_LEASE, MARGIN_SHARE, new_incarnation
from storage.errors import Unavailable
from storage.names import SLOTS, slot_of
from storage.records import NodeRecord, SlotRecord
from tests.actors.cluster.nodes import (
    LEASE_MS,
    ClusterNode,
    Nodes,
    nodes_of,
    nothing_more,
    one_node,
    send,
    seqs,
)

LEASE_S = LEASE_MS / 1000
CONV = "d/1/2"


class Weather:
    """What one node meets when it asks for leases."""

    def __init__(self, n: ClusterNode) -> None:
        self._leases = n.nodes.leases
        self.beats_fail = False
        self.beats_in_doubt = False
        """They take place, and nobody here learns of it."""
        self.looks_fail = False
        self.claims_in_doubt = 0
        """So many claims take place, and their callers do not learn of it."""
        self.claims_lost = 0
        n.cluster.leases = n.placement._leases = self

    async def beat(self, record: NodeRecord) -> bool:
        if self.beats_fail:
            raise Unavailable("away")
        done = await self._leases.beat(record)
        if self.beats_in_doubt:
            raise Unavailable("nobody knows", applied=None)
        return done

    async def nodes(self) -> list[NodeRecord]:
        if self.looks_fail:
            raise Unavailable("away")
        return await self._leases.nodes()

    async def remove(self, incarnation: str, beat: int) -> bool:
        return await self._leases.remove(incarnation, beat)

    async def slots(self) -> list[SlotRecord]:
        if self.looks_fail:
            raise Unavailable("away")
        return await self._leases.slots()

    async def claim(self, wanted: Sequence[SlotRecord]) -> list[SlotRecord]:
        if self.claims_lost:
            self.claims_lost -= 1
            raise Unavailable("nobody knows", applied=None)
        found = await self._leases.claim(wanted)
        if self.claims_in_doubt:
            self.claims_in_doubt -= 1
            raise Unavailable("nobody knows", applied=None)
        return found

    async def agree(self, name: str, value: str) -> str:
        return await self._leases.agree(name, value)


def one_writer_each(nodes: Nodes) -> bool:
    """No slot has two nodes that believe to write it."""
    return all(len(owners) == 1 for owners in nodes.owners().values())


async def test_nodes_share_all_slots_and_agree_who_has_which(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2", "n3") as nodes:
        owners = nodes.owners()
        assert len(owners) == SLOTS
        assert one_writer_each(nodes)
        for n in nodes.running:
            share = len(n.placement.owned)
            assert SLOTS / 3 * 0.8 < share < SLOTS / 3 * 1.2
        conv = nodes.running[0].conv()
        inboxes = {n.placement.owner_inbox(slot_of(conv)) for n in nodes.running}
        assert inboxes == {nodes.running[0].inbox}


async def test_a_first_beat_that_was_in_doubt_gives_no_lease(autojump_clock: MockClock) -> None:
    """Others may have seen it stand still since: its removal and its retry would both succeed."""
    async with nodes_of() as nodes:
        alone = nodes.start("n1", together=False)
        weather = Weather(alone)
        placement = alone.placement
        await wait_all_tasks_blocked()
        placement._good_until = float("-inf")
        weather.beats_in_doubt = True
        with trio.move_on_after(LEASE_S):
            await placement.run_beat()
        weather.beats_in_doubt = False
        seen = placement.me
        await placement.beat()
        assert not placement.good()
        assert await nodes.leases.remove(seen.incarnation, 1), "they hold it for dead"
        await placement.beat()
        assert not placement.good()
        assert placement.me.incarnation != seen.incarnation


async def test_a_node_has_joined_when_it_holds_its_lease_and_owns_what_is_free(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of() as nodes:
        alone = nodes.start("n1")
        weather = Weather(alone)
        weather.beats_fail = True
        with trio.move_on_after(3 * LEASE_S) as scope:
            await alone.cluster.placement.wait_joined()
        assert scope.cancelled_caught, "it would serve, and write nothing"
        assert not alone.placement.owned
        weather.beats_fail = False
        with trio.fail_after(LEASE_S):
            await alone.cluster.placement.wait_joined()
        assert len(alone.placement.owned) == SLOTS


async def test_a_node_that_comes_and_goes_moves_only_its_own_share(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        before = nodes.owners()
        third = nodes.start("n3")
        await nodes.settled()
        after = nodes.owners()
        moved = [slot for slot in range(SLOTS) if before[slot] != after[slot]]
        assert {after[slot][0] for slot in moved} == {"n3"}
        assert len(moved) == len(third.placement.owned)
        await third.placement.leave()
        assert not third.placement.owned
        with trio.fail_after(LEASE_S):
            await nodes.until(lambda: nodes.owners() == before)


@pytest.mark.parametrize("rate", [0.9, 0.95, 1.0, 1.05, 1.1])
async def test_a_node_that_cannot_beat_is_fenced_before_others_take_over(
    autojump_clock: MockClock, rate: float
) -> None:
    """Whatever the clock of the node that is cut off, within the margin."""
    async with nodes_of("n1") as nodes:
        skewed = nodes.start("n2", now=lambda: 1_000 + trio.current_time() * rate)
        await nodes.settled()
        weather = Weather(skewed)
        mine = set(skewed.placement.owned)
        weather.beats_fail = weather.looks_fail = True
        (other,) = [n for n in nodes.running if n is not skewed]
        fenced_at = taken_at = None
        for _ in range(int(LEASE_S * 300)):
            await trio.sleep(0.01)
            assert one_writer_each(nodes)
            if fenced_at is None and not skewed.placement.good():
                fenced_at = trio.current_time()
            if mine & set(other.placement.owned):
                taken_at = trio.current_time()
                break
        assert fenced_at is not None
        assert taken_at is not None
        assert taken_at > fenced_at
        assert mine <= set(other.placement.owned)


async def test_a_node_with_a_longer_lease_than_ours_is_waited_for(
    autojump_clock: MockClock,
) -> None:
    """As while `lease_ms` is changed by a rolling restart."""
    async with nodes_of("n1") as nodes:
        (n1,) = nodes.running
        patient = nodes.start("n2", lease_ms=5 * LEASE_MS)
        await nodes.settled()
        mine = set(patient.placement.owned)
        weather = Weather(patient)
        weather.beats_fail = weather.looks_fail = True
        nodes.network.part(n1.inbox, patient.inbox)
        began = trio.current_time()
        while not mine & set(n1.placement.owned):
            await trio.sleep(0.01)
            assert one_writer_each(nodes)
        assert not patient.placement.good()
        assert 5 * LEASE_S * 0.8 <= trio.current_time() - began < 5 * LEASE_S * 1.3


async def test_a_node_that_was_removed_begins_anew_and_gets_its_share_back(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        weather = Weather(n2)
        before, mine = n2.placement.me.incarnation, set(n2.placement.owned)
        weather.beats_fail = True
        await nodes.until(lambda: len(n1.placement.owned) == SLOTS)
        weather.beats_fail = False
        await nodes.settled()
        assert n2.placement.me.incarnation != before
        assert n2.placement.me.incarnation.startswith("n2.")
        assert set(n2.placement.owned) == mine
        assert all(n2.placement.owned[slot] >= 3 for slot in mine), "with each owner, an epoch"


async def test_a_node_that_only_cannot_beat_for_a_while_keeps_what_it_has(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        _, n2 = nodes.running
        weather = Weather(n2)
        before = dict(n2.placement.owned)
        weather.beats_fail = True
        await trio.sleep(LEASE_S * (1 - 1 / MARGIN_SHARE) - LEASE_S / BEATS_PER_LEASE - 0.15)
        assert n2.placement.good()
        weather.beats_fail = False
        await trio.sleep(3 * LEASE_S)
        assert n2.placement.owned == before


async def test_a_node_that_has_left_does_not_come_back_by_a_late_beat(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        _, n2 = nodes.running
        before = n2.placement.me.incarnation
        await n2.placement.leave()
        await n2.placement.remove()
        await trio.sleep(2 * LEASE_S)  # it beats on until its tasks are ended
        assert n2.placement.me.incarnation == before
        assert [record.node for record in await nodes.leases.nodes()] == ["n1"]


async def test_what_a_fenced_node_wrote_is_not_acknowledged_but_asked_again(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        _, n2 = nodes.running
        conv = n2.conv()
        ann = await n2.join(1)
        assert await send(ann, conv, "a") == [1]
        weather = Weather(n2)
        weather.beats_fail = True
        await nodes.until(lambda: not n2.placement.good())
        reply = await ann.ask("send", conv=conv, key="k", kind="text", body="b")
        assert (reply["t"], reply["code"], reply["retry"]) == ("error", "unavailable", True)


async def test_slots_move_to_who_comes_without_a_moment_of_two_writers(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1") as nodes:
        (n1,) = nodes.running
        nodes.start("n2")
        with trio.fail_after(60):
            while not nodes._settled():
                assert one_writer_each(nodes)
                await trio.sleep(0.001)
        epochs = {slot: n1.placement.table[slot].epoch for slot in range(SLOTS)}
        assert set(epochs.values()) == {1, 2}


async def test_a_hand_over_of_which_nobody_knows_whether_it_took_place_is_done_anew(
    autojump_clock: MockClock,
) -> None:
    """Twice: once it had taken place, and once it had not."""
    for fault in ("claims_in_doubt", "claims_lost"):
        async with nodes_of("n1") as nodes:
            (n1,) = nodes.running
            weather = Weather(n1)
            setattr(weather, fault, 3)
            nodes.start("n2")
            await nodes.settled()
            assert getattr(weather, fault) == 0
            assert one_writer_each(nodes)
            ann = await n1.join(1)
            for conv in (n1.conv(), nodes.running[1].conv()):
                await send(ann, conv, "a")


async def test_a_node_that_wants_slots_and_does_not_learn_whether_it_got_them_looks(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of() as nodes:
        n1 = nodes.start("n1")
        weather = Weather(n1)
        weather.claims_in_doubt = 1
        await nodes.settled()
        assert weather.claims_in_doubt == 0
        assert set(n1.placement.owned.values()) == {1}


async def test_a_dead_nodes_conversations_go_on_at_another_with_all_that_was_acknowledged(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        ann = await n1.join(1)
        assert await send(ann, conv, "a") == [1]
        started = trio.current_time()
        n2.kill()
        assert await send(ann, conv, "b") == [2]
        took = trio.current_time() - started
        assert LEASE_S * (1 - 1 / BEATS_PER_LEASE) <= took < 2 * LEASE_S
        assert await seqs(ann, 2) == [1, 2]
        await nothing_more([ann])


async def test_what_is_learnt_moves_forward_only() -> None:
    async with one_node() as n:
        placement = n.placement
        placement.learn([SlotRecord(5, "b", 3)])
        placement.learn([SlotRecord(5, "c", 2), SlotRecord(5, "d", 3)])
        assert placement.table[5] == SlotRecord(5, "b", 3)


async def test_a_slot_that_others_have_claimed_ends_the_lease() -> None:
    async with one_node() as n:
        placement = n.placement
        before = placement.me.incarnation
        placement.learn([SlotRecord(5, before, 2)])
        placement.owned.update({5: 2, 6: 1})
        placement._good_until = float("inf")
        placement.learn([SlotRecord(5, "b", 2), SlotRecord(7, "b", 9)])
        assert placement.owned, "that is old, or not about ours"
        placement.learn([SlotRecord(5, "b", 3)])
        assert not placement.owned
        assert not placement.good()
        assert placement.me.incarnation != before


async def test_a_slot_that_is_being_given_away_may_change_hands() -> None:
    async with one_node() as n:
        placement = n.placement
        placement.owned[5] = 2
        placement._releasing.add(5)
        assert placement.epoch_of(5) == 0, "it takes no new commands"
        before = placement.me.incarnation
        placement.learn([SlotRecord(5, "b", 3)])
        assert placement.me.incarnation == before


async def test_an_owner_that_is_not_seen_to_live_is_nowhere() -> None:
    async with one_node() as n:
        n.placement.learn([SlotRecord(5, "dead.1", 1)])
        assert n.placement.owner_inbox(5) is None
        assert n.placement.preferred(5) is None, "nobody is seen, this node neither"


async def test_a_node_that_leaves_is_gone_at_once(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        await n2.leave()
        assert len(await nodes.leases.nodes()) == 1
        started = trio.current_time()
        await n1.join(1)
        assert trio.current_time() - started < 0.1, "nobody waits for it to hear anything"
        await nodes.settled()
        assert trio.current_time() - started < LEASE_S / 2, "or for a lease to end"
        assert len(n1.placement.owned) == SLOTS


def test_no_two_incarnations_have_one_name() -> None:
    assert len({new_incarnation("n1") for _ in range(100)}) == 100


async def test_those_who_look_are_told_how_it_stands(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        n2.cluster.listens("http://h:1", "h:2")
        await trio.sleep(2 * LEASE_S)
        told = n1.cluster.status()
        assert (told["node"], told["lease_good"], told["lease_ms"]) == ("n1", True, LEASE_MS)
        assert told["slots_unowned"] == 0
        seen = {each["node"]: each for each in told["nodes"]}  # type: ignore[attr-defined]
        assert seen["n2"]["tcp"] == "h:2"
        assert seen["n2"]["link"]["in_step"]
        assert seen["n1"]["link"] is None
        assert seen["n1"]["slots"] + seen["n2"]["slots"] == SLOTS
