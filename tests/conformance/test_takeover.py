"""What every timeline that nodes share must do when one writer takes a log over from another.

`old` and `new` are two nodes' ends of one store. The old one has been cut off without knowing it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import trio

from storage.interfaces import Store
from storage.memory import MemoryStore
from storage.names import SLOTS, slot_of
from storage.records import Append, Commit, Head, Mark, Member, Revision, Settings
from tests.conformance.making import append, group, payload, payloads
from tests.helpers.cassandra import another_store, empty_store

ALL_SLOTS = range(SLOTS)
Writers = tuple[Store, Store]


@pytest.fixture(params=["memory", "cassandra"])
async def writers(request: pytest.FixtureRequest) -> AsyncIterator[Writers]:
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            store = MemoryStore()
            yield store, store
            return
        connection = request.getfixturevalue("cassandra")
        old = await stack.enter_async_context(empty_store(connection))
        yield old, await stack.enter_async_context(another_store(connection))


def written(conv: str, first: int, last: int, epoch: int, body: str = "hi") -> Commit:
    entries = [payload(seq, body) for seq in range(first, last + 1)]
    return Commit(appends=[Append(conv, first, entries, 1000 + last)], epochs={conv: epoch})


async def test_who_takes_a_log_over_has_all_that_was_written(writers: Writers) -> None:
    old, new = writers
    await old.load(["g/1"], 9, {"g/1": 1})
    for seq in (1, 2, 3):
        await old.commit(written("g/1", seq, seq, 1))
    loaded = (await new.load(["g/1"], 2, {"g/1": 2}))["g/1"]
    assert loaded.head == Head(3, 1003)
    assert loaded.tail == payloads(2, 3)
    await new.commit(written("g/1", 4, 4, 2))
    assert await new.read("g/1", limit=9) == await old.read("g/1", limit=9) == payloads(1, 4)


async def test_who_takes_over_what_was_left_open_is_told_so(writers: Writers) -> None:
    old, new = writers
    assert not (await old.load(["g/1"], 9, {"g/1": 1}))["g/1"].doubt, "nobody had it before"
    await old.commit(written("g/1", 1, 1, 1))
    assert not (await old.load(["g/1"], 9, {"g/1": 1}))["g/1"].doubt, "its own"
    assert (await new.load(["g/1"], 9, {"g/1": 2}))["g/1"].doubt
    assert (await new.load(["g/1"], 9, {"g/1": 2}))["g/1"].doubt, "it may not have heard it"
    await new.commit(written("g/1", 2, 2, 2))
    assert not (await new.load(["g/1"], 9, {"g/1": 2}))["g/1"].doubt
    await new.put_away({"g/1": 2})
    assert not (await old.load(["g/1"], 9, {"g/1": 3}))["g/1"].doubt, "it was put away"


async def test_what_a_late_writer_writes_is_void_and_raises_nothing(writers: Writers) -> None:
    old, new = writers
    await old.load(["g/1"], 9, {"g/1": 1})
    await old.commit(written("g/1", 1, 2, 1))
    await new.load(["g/1"], 9, {"g/1": 2})
    await new.commit(written("g/1", 3, 3, 2, "new"))
    late = written("g/1", 3, 7, 1, "late")
    late.revisions = [Revision("g/1", 1, payload(1, "edited late"))]
    late.members = [Member("g/1", 5)]
    late.groups = [group(1)]
    await old.commit(late)
    expected = [*payloads(1, 2), payload(3, "new")]
    assert await new.read("g/1", limit=9) == expected
    assert await new.read("g/1", after=0, limit=9) == expected
    assert await new.members("g/1", after=0, limit=9) == []
    assert await new.memberships(5) == []
    assert await new.groups([1]) == {}
    loaded = (await new.load(["g/1"], 9, {"g/1": 3}))["g/1"]
    assert (loaded.head, loaded.tail, loaded.members) == (Head(3, 1003), expected, [])
    await new.commit(written("g/1", 4, 4, 3))
    assert await new.read("g/1", after=3, limit=9) == [payload(4)]


async def test_settings_of_a_late_writer_are_void_and_raise_nothing(writers: Writers) -> None:
    old, new = writers
    mine = Settings(conv="g/1", user=5, muted=True, draft="new")
    await new.put_settings(mine, 2)
    await old.put_settings(Settings(conv="g/1", user=5, draft="late"), 1)
    assert await new.settings(5, "g/1") == await old.settings(5, "g/1") == mine


async def test_a_late_writer_cannot_put_away_what_another_has_in_hand(writers: Writers) -> None:
    old, new = writers
    await old.load(["g/1"], 9, {"g/1": 1})
    await old.commit(written("g/1", 1, 1, 1))
    await new.load(["g/1"], 9, {"g/1": 2})
    await new.commit(written("g/1", 2, 3, 2))
    await old.put_away({"g/1": 1})
    assert await new.left_open(ALL_SLOTS) == ["g/1"]
    await new.put_away({"g/1": 2})
    assert await new.heads(["g/1"]) == {"g/1": Head(3, 1003, open=False)}


async def test_what_is_put_away_during_a_commit_loses_nothing_of_it(writers: Writers) -> None:
    """Else what was acknowledged would be no part of the log for the next writer."""
    old, new = writers
    for number in range(20):
        conv = f"g/{number + 1}"
        await old.load([conv], 9, {conv: 1})
        await old.commit(written(conv, 1, 1, 1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(old.commit, written(conv, 2, 3, 1))
            await trio.sleep(number / 5_000)
            await old.put_away({conv: 1})
        assert (await new.load([conv], 9, {conv: 2}))[conv].tail == payloads(1, 3)


async def test_a_log_is_open_from_its_first_commit_until_it_is_put_away(writers: Writers) -> None:
    old, new = writers
    convs = ["g/1", "g/2", "d/1/2"]
    epochs = dict.fromkeys(convs, 1)
    await old.load(convs, 9, epochs)
    assert await new.left_open(ALL_SLOTS) == []
    await old.commit(
        Commit(
            appends=[append("g/1", 1, 1)],
            marks=[Mark("d/1/2", 1, read=1)],
            epochs={"g/1": 1, "d/1/2": 1},
        )
    )
    assert set(await new.left_open(ALL_SLOTS)) == {"g/1", "d/1/2"}
    assert await new.left_open({slot_of("g/1")}) == ["g/1"]
    assert await new.left_open(set(ALL_SLOTS) - {slot_of("g/1"), slot_of("d/1/2")}) == []
    assert {conv: head.open for conv, head in (await new.heads(convs)).items()} == {
        "g/1": True,
        "g/2": False,
        "d/1/2": True,
    }
    await old.put_away(epochs)
    assert await new.left_open(ALL_SLOTS) == []
    assert await new.heads(convs) == {"g/1": Head(1, 1001), "g/2": Head(), "d/1/2": Head()}


async def test_what_a_writer_has_in_hand_may_be_past_any_cursor(writers: Writers) -> None:
    old, new = writers
    await old.load(["d/1/2", "d/1/3"], 9, {"d/1/2": 1, "d/1/3": 1})
    both = Commit(
        appends=[append("d/1/2", 1, 1), append("d/1/3", 1, 1)], epochs={"d/1/2": 1, "d/1/3": 1}
    )
    await old.commit(both)
    await old.put_away({"d/1/3": 1})
    past = {"d/1/2": 1, "d/1/3": 1}
    open_ = [m.conv for m in await new.memberships(1, past=past) if m.head.open]
    assert open_ == ["d/1/2"]


async def test_a_log_that_was_put_away_and_taken_up_again_goes_on(writers: Writers) -> None:
    old, new = writers
    for round_ in range(3):
        await old.load(["g/1"], 9, {"g/1": 1})
        await old.commit(written("g/1", round_ + 1, round_ + 1, 1))
        await old.put_away({"g/1": 1})
        assert await new.heads(["g/1"]) == {"g/1": Head(round_ + 1, 1001 + round_)}
    assert (await new.load(["g/1"], 9, {"g/1": 2}))["g/1"].tail == payloads(1, 3)
    await new.put_away({"g/1": 2})
    assert await old.left_open(ALL_SLOTS) == []


async def test_who_only_looks_takes_nothing_over(writers: Writers) -> None:
    old, new = writers
    await old.load(["g/1"], 9, {"g/1": 4})
    await old.commit(written("g/1", 1, 2, 4))
    assert (await new.load(["g/1"], 9))["g/1"].tail == payloads(1, 2)
    await old.commit(written("g/1", 3, 3, 4))
    loaded = (await new.load(["g/1"], 1))["g/1"]
    assert (loaded.head, loaded.tail) == (Head(3, 1003), [payload(3)])
    assert await old.left_open(ALL_SLOTS) == ["g/1"]


async def test_all_of_a_conversation_is_taken_over_with_it(writers: Writers) -> None:
    old, new = writers
    await old.load(["g/1", "d/5/9"], 9, {"g/1": 1, "d/5/9": 1})
    await old.commit(
        Commit(
            appends=[append("g/1", 1, 2), append("d/5/9", 1, 1)],
            groups=[group(1)],
            members=[Member("g/1", 5, "owner", 1), Member("g/1", 6, since=2)],
            marks=[Mark("g/1", 5, read=2, delivered=2)],
            epochs={"g/1": 1, "d/5/9": 1},
        )
    )
    await old.commit(
        Commit(
            appends=[append("g/1", 3, 3)],
            revisions=[Revision("g/1", 1, payload(1, "edited"))],
            gone=[("g/1", 6)],
            epochs={"g/1": 1},
        )
    )
    found = await new.load(["g/1", "d/5/9"], 9, {"g/1": 2, "d/5/9": 2})
    tea = found["g/1"]
    assert tea.tail == [payload(1, "edited"), *payloads(2, 3)]
    assert (tea.group, tea.members) == (group(1), [Member("g/1", 5, "owner", 1)])
    assert tea.marks == [Mark("g/1", 5, 2, 2)]
    assert found["d/5/9"].tail == [payload(1)]
    assert {m.conv for m in await new.memberships(5)} == {"g/1", "d/5/9"}
    assert await new.memberships(6) == []
    # And the new writer may say the opposite.
    await new.commit(
        Commit(
            appends=[append("g/1", 4, 4)],
            members=[Member("g/1", 6, "admin", 4)],
            gone=[("g/1", 5)],
            epochs={"g/1": 2},
        )
    )
    assert await new.members("g/1", after=0, limit=9) == [Member("g/1", 6, "admin", 4)]
