"""What leases must do: nodes are seen by all, and a slot has one owner at each epoch."""

from __future__ import annotations

import pytest
import trio

from storage.names import SLOTS
from storage.records import NodeRecord, SlotRecord
from storage.shared import Leases


async def test_a_node_is_seen_as_it_was_last_written_and_no_more_once_it_is_removed(
    leases: Leases,
) -> None:
    first = NodeRecord(
        node="a",
        incarnation="a1",
        inbox="i1",
        draining=True,
        http="http://10.0.0.1:80",
        tcp="10.0.0.1:81",
        started_ms=1_700_000_000_000,
        connections=2_000_000,
        conversations=3,
        lag_ms=4,
    )
    other = NodeRecord(node="b", incarnation="b1")
    assert await leases.beat(first)
    assert await leases.beat(other)
    assert sorted(await leases.nodes(), key=lambda record: record.node) == [first, other]

    second = NodeRecord(node="a", incarnation="a1", beat=2)
    assert await leases.beat(second)
    assert await leases.remove("b1", 1)
    assert await leases.nodes() == [second]
    assert await leases.remove("b1", 1), "it is not there, whoever did it"
    assert await leases.remove("a1", 2)
    assert await leases.nodes() == []


async def test_a_node_that_was_removed_can_never_beat_again(leases: Leases) -> None:
    assert await leases.beat(NodeRecord(node="a", incarnation="a1"))
    assert await leases.remove("a1", 1)
    assert not await leases.beat(NodeRecord(node="a", incarnation="a1", beat=2))
    assert await leases.nodes() == []


async def test_a_node_that_has_beaten_since_one_looked_is_not_removed(leases: Leases) -> None:
    assert await leases.beat(NodeRecord(node="a", incarnation="a1"))
    assert await leases.beat(NodeRecord(node="a", incarnation="a1", beat=2))
    assert not await leases.remove("a1", 1)
    assert await leases.beat(NodeRecord(node="a", incarnation="a1", beat=2)), "said twice"
    assert not await leases.beat(NodeRecord(node="a", incarnation="a1", beat=1)), "long ago"
    assert await leases.beat(NodeRecord(node="a", incarnation="a1", beat=3))


async def test_of_one_that_beats_and_one_that_removes_exactly_one_has_its_way(
    leases: Leases,
) -> None:
    for number in range(5):
        name = f"a{number}"
        won: list[bool] = []

        async def beat(name: str = name, won: list[bool] = won) -> None:
            won.append(await leases.beat(NodeRecord(node="a", incarnation=name, beat=2)))

        async def remove(name: str = name, won: list[bool] = won) -> None:
            won.append(await leases.remove(name, 1))

        assert await leases.beat(NodeRecord(node="a", incarnation=name))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beat)
            nursery.start_soon(remove)
        assert sorted(won) == [False, True]


async def test_a_node_that_was_started_again_is_another_one_until_its_last_life_is_removed(
    leases: Leases,
) -> None:
    assert await leases.beat(NodeRecord(node="a", incarnation="a1"))
    assert await leases.beat(NodeRecord(node="a", incarnation="a2"))
    assert {record.incarnation for record in await leases.nodes()} == {"a1", "a2"}
    assert await leases.remove("a1", 1)
    assert [record.incarnation for record in await leases.nodes()] == ["a2"]


async def test_what_was_given_and_taken_is_not_kept(leases: Leases) -> None:
    record = NodeRecord(node="a", incarnation="a1", beat=1)
    await leases.beat(record)
    record.beat = 50
    (seen,) = await leases.nodes()
    seen.beat = 60
    assert [kept.beat for kept in await leases.nodes()] == [1]


async def test_all_slots_are_there_from_the_first_on(leases: Leases) -> None:
    assert await leases.slots() == [SlotRecord(slot) for slot in range(SLOTS)]


async def test_a_slot_is_claimed_by_who_knows_its_epoch(leases: Leases) -> None:
    mine = [SlotRecord(7, "a1", 1), SlotRecord(1023, "a1", 1), SlotRecord(0, "a1", 1)]
    assert await leases.claim(mine) == mine
    slots = await leases.slots()
    assert [slot for slot in slots if slot.owner] == [mine[2], mine[0], mine[1]]
    assert len(slots) == SLOTS

    # Too late, too early, and right; each slot for itself, told in the order asked for.
    wanted = [SlotRecord(7, "b1", 1), SlotRecord(0, "b1", 3), SlotRecord(1023, "b1", 2)]
    assert await leases.claim(wanted) == [mine[0], mine[2], wanted[2]]
    assert (await leases.slots())[1023] == SlotRecord(1023, "b1", 2)
    assert await leases.claim([]) == []


async def test_a_slot_can_be_given_to_another_or_to_nobody(leases: Leases) -> None:
    await leases.claim([SlotRecord(5, "a1", 1)])
    await leases.claim([SlotRecord(5, "b1", 2)])
    assert await leases.claim([SlotRecord(5, "", 3)]) == [SlotRecord(5, "", 3)]
    assert await leases.claim([SlotRecord(5, "a1", 3)]) == [SlotRecord(5, "", 3)]
    assert await leases.claim([SlotRecord(5, "a1", 4)]) == [SlotRecord(5, "a1", 4)]


async def test_a_claim_that_worked_works_again(leases: Leases) -> None:
    """Who does not know whether it worked may ask once more."""
    mine = [SlotRecord(5, "a1", 1)]
    assert await leases.claim(mine) == mine
    assert await leases.claim(mine) == mine


@pytest.mark.parametrize("nodes", [2, 8])
async def test_of_those_who_claim_at_once_one_gets_the_slot_and_all_see_who(
    leases: Leases, nodes: int
) -> None:
    seen: list[list[SlotRecord]] = []

    async def claim(owner: str) -> None:
        seen.append(await leases.claim([SlotRecord(slot, owner, 1) for slot in range(20)]))

    async with trio.open_nursery() as nursery:
        for number in range(nodes):
            nursery.start_soon(claim, f"n{number}")
    owners = (await leases.slots())[:20]
    assert all(slot.owner and slot.epoch == 1 for slot in owners)
    assert all(answer == owners for answer in seen)


async def test_whoever_asks_first_decides_for_all(leases: Leases) -> None:
    answers: list[str] = []

    async def ask(value: str) -> None:
        answers.append(await leases.agree("colour", value))

    async with trio.open_nursery() as nursery:
        for value in ("red", "green", "blue"):
            nursery.start_soon(ask, value)
    assert len(set(answers)) == 1
    assert await leases.agree("colour", "white") == answers[0]
    assert await leases.agree("shape", "round") == "round"
