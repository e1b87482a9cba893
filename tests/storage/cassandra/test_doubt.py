"""A conditional write whose answer is lost, on a real Cassandra: performed it counts, not performed
it may be said again, and nobody is told that somebody else was faster when nobody was.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal
from unittest.mock import patch

import pytest
import trio

from storage.cassandra import CassandraStore
from storage.cassandra.connection import CONDITIONAL
from storage.cassandra.session import Connected
from storage.errors import Unavailable
from storage.records import NodeRecord, SlotRecord
from tests.conformance.making import session
from tests.helpers.cassandra import another_store, empty_store

Lost = Literal["request", "answer"]
LATER = 10**9


@pytest.fixture
async def store(cassandra: Connected) -> AsyncIterator[CassandraStore]:
    async with empty_store(cassandra) as opened:
        yield opened


@pytest.fixture
async def other(cassandra: Connected, store: CassandraStore) -> AsyncIterator[CassandraStore]:
    """Another process, to which nothing is lost."""
    async with another_store(cassandra) as opened:
        yield opened


@contextmanager
def losing(store: CassandraStore, lost: Lost) -> Iterator[list[int]]:
    """Every conditional write ends in doubt; how many statements each lost call had."""
    send = store.bridge.all
    calls: list[int] = []

    async def in_doubt(statements: Sequence[Any], profile: str) -> list[Any]:
        if profile != CONDITIONAL:
            return await send(statements, profile)
        calls.append(len(statements))
        if lost == "answer":
            await send(statements, profile)
        await trio.lowlevel.checkpoint()
        raise Unavailable("lost", applied=None)

    with patch.object(store.bridge, "all", in_doubt):
        yield calls
    assert calls, "nothing was lost"


def record(beat: int) -> NodeRecord:
    return NodeRecord(node="a", incarnation="a1", beat=beat)


async def beat_up_to(store: CassandraStore, beat: int) -> None:
    for number in range(1, beat + 1):
        assert await store.beat(record(number))


@pytest.mark.parametrize("beat", [1, 2, 3])
async def test_a_beat_whose_answer_is_lost_was_written(store: CassandraStore, beat: int) -> None:
    await beat_up_to(store, beat - 1)
    with losing(store, "answer"):
        assert await store.beat(record(beat))
    assert await store.nodes() == [record(beat)]


@pytest.mark.parametrize("beat", [1, 2, 3])
async def test_a_beat_that_is_lost_kills_no_node(store: CassandraStore, beat: int) -> None:
    """It would give up all its conversations, though nobody holds it for dead."""
    await beat_up_to(store, beat - 1)
    with losing(store, "request"), pytest.raises(Unavailable) as caught:
        await store.beat(record(beat))
    assert caught.value.applied is None
    assert await store.beat(record(beat)), "it may be said again"


@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_a_node_that_is_dead_learns_it_in_doubt_too(
    store: CassandraStore, other: CassandraStore, lost: Lost
) -> None:
    await beat_up_to(store, 2)
    assert await other.remove("a1", 2)
    with losing(store, lost):
        assert not await store.beat(record(3))
    assert await store.nodes() == []


async def test_who_removed_a_node_knows_it_in_doubt(store: CassandraStore) -> None:
    await beat_up_to(store, 2)
    with losing(store, "request"):
        assert not await store.remove("a1", 2), "it is there"
    with losing(store, "answer"):
        assert await store.remove("a1", 2)


@pytest.mark.parametrize("epoch", [1, 2])
async def test_slots_whose_claim_is_in_doubt_are_told_as_they_are(
    store: CassandraStore, other: CassandraStore, epoch: int
) -> None:
    slots = range(3)
    for number in range(1, epoch):
        await other.claim([SlotRecord(slot, "z1", number) for slot in slots])
    theirs = SlotRecord(1, "b1", epoch)
    assert await other.claim([theirs]) == [theirs]
    wanted = [SlotRecord(slot, "a1", epoch) for slot in slots]
    with losing(store, "request"):
        assert await store.claim(wanted[1:2]) == [theirs]
    with losing(store, "answer"):
        assert await store.claim(wanted) == [wanted[0], theirs, wanted[2]]


@pytest.mark.parametrize("epoch", [1, 2])
async def test_a_claim_that_may_yet_be_written_is_not_told_as_refused(
    store: CassandraStore, other: CassandraStore, epoch: int
) -> None:
    """Else its owner would go on under the old epoch, and it lands then."""
    for number in range(1, epoch):
        await other.claim([SlotRecord(0, "a1", number)])
    given = SlotRecord(0, "b1", epoch)
    with losing(store, "request"), pytest.raises(Unavailable) as caught:
        await store.claim([given])
    assert caught.value.applied is None
    # As `placement` settles it, before the late write or after it.
    kept = SlotRecord(0, "a1", epoch)
    assert await store.claim([kept]) == [kept]
    assert await other.claim([given]) == [kept]


async def test_what_nodes_agree_on_in_doubt_is_what_is_kept(
    store: CassandraStore, other: CassandraStore
) -> None:
    with losing(store, "request"), pytest.raises(Unavailable) as caught:
        await store.agree("colour", "red")
    assert caught.value.applied is None
    with losing(store, "answer"):
        assert await store.agree("colour", "red") == "red"
        assert await store.agree("colour", "blue") == "red"
    assert await other.agree("colour", "green") == "red"


async def rotated(store: CassandraStore, old: bytes, new: bytes) -> bytes | None:
    found = await store.rotate(old, new, now=5, expires=LATER)
    return found.token_hash if found else None


async def test_a_token_whose_rotation_lost_its_answer_was_rotated(store: CassandraStore) -> None:
    await store.create_session(session("s", 5, b"old", expires=LATER))
    with losing(store, "answer"):
        assert await rotated(store, b"old", b"new") == b"new"
    assert await store.ended_sessions(["s"]) == set()
    assert await rotated(store, b"new", b"newest") == b"newest"


async def test_a_rotation_that_is_lost_ends_no_session(store: CassandraStore) -> None:
    """Nobody has a copy of the token, so nobody must be logged out."""
    await store.create_session(session("s", 5, b"old", expires=LATER))
    with losing(store, "request"), pytest.raises(Unavailable) as caught:
        await rotated(store, b"old", b"new")
    assert caught.value.applied is None
    assert await store.ended_sessions(["s"]) == set()
    assert await rotated(store, b"old", b"new") == b"new", "the old one is as good as before"


@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_of_two_rotations_of_one_token_the_one_in_doubt_is_not_taken_for_the_faster(
    store: CassandraStore, other: CassandraStore, lost: Lost
) -> None:
    """Another uses the token after this one has looked, and before it writes."""
    await store.create_session(session("s", 5, b"old", expires=LATER))
    index = store._sessions._index

    async def overtaken(*args: Any) -> None:
        await index(*args)
        assert await rotated(other, b"old", b"theirs") == b"theirs"

    with patch.object(store._sessions, "_index", overtaken), losing(store, lost) as calls:
        with pytest.raises(Unavailable):  # of ending the session, which is lost as well
            await rotated(store, b"old", b"ours")
        assert len(calls) == 2
    assert await rotated(store, b"ours", b"more") is None
