"""Writers that crash, doubt or come too late, on a real Cassandra.

What lands late is written as the driver would write it, long after whoever sent it gave up.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import trio

from storage.cassandra import CassandraStore
from storage.cassandra.changes import Changes, encode_changes
from storage.cassandra.connection import READ, WRITE
from storage.cassandra.log import Walk, bucket_of, place
from storage.cassandra.session import Connected
from storage.cassandra.versions import epoch_of, version_of
from storage.errors import Unavailable
from storage.records import Append, Commit, Head, Mark, Member, Revision, Settings
from tests.conformance.making import append, appending, group, payload, payloads
from tests.helpers.cassandra import another_store, empty_store
from tests.storage.cassandra.test_bridge import all_back


@pytest.fixture
async def store(cassandra: Connected) -> AsyncIterator[CassandraStore]:
    async with empty_store(cassandra) as opened:
        yield opened


def written(conv: str, first: int, last: int, epoch: int) -> Commit:
    return Commit(appends=[append(conv, first, last)], epochs={conv: epoch})


async def land(
    connection: Connected,
    store: CassandraStore,
    conv: str,
    seqs: range,
    version: int,
    changes: Changes | None = None,
) -> None:
    """Rows of a commit of this version land now."""
    encoded = encode_changes(changes or Changes())
    rows = [
        connection.statements.bind(
            "add_row",
            *(conv, bucket_of(seq), seq, version, payload(seq, "late"), 1000 + seq, encoded),
            version,
        )
        for seq in seqs
    ]
    await store.bridge.all(rows, WRITE)


async def versions(connection: Connected, store: CassandraStore, conv: str) -> dict[int, int]:
    rows = await store.bridge.one(connection.statements.bind("beyond", conv, 0, 0), READ)
    return {seq: version for seq, version, *_ in rows}


async def test_rows_of_an_earlier_epoch_that_land_late_are_void_for_ever(
    cassandra: Connected, store: CassandraStore
) -> None:
    await store.load(["g/1"], 9, {"g/1": 2})
    await store.commit(written("g/1", 1, 2, 2))
    late = version_of(1, 10**11)
    await land(cassandra, store, "g/1", range(2, 6), late)
    expected = payloads(1, 2)
    async with another_store(cassandra) as other:
        assert await other.read("g/1", limit=9) == expected
        assert await other.read("g/1", after=1, limit=9) == expected[1:]
        assert await other.read("g/1", after=2, limit=9) == []
        loaded = (await other.load(["g/1"], 9, {"g/1": 3}))["g/1"]
        assert (loaded.head, loaded.tail) == (Head(2, 1002), expected)
        await other.put_away({"g/1": 3})
        assert await other.heads(["g/1"]) == {"g/1": Head(2, 1002)}


async def test_what_is_in_doubt_lands_after_the_log_was_loaded_again_and_is_void(
    cassandra: Connected, store: CassandraStore
) -> None:
    await store.load(["g/1"], 9, {"g/1": 1})
    await store.commit(written("g/1", 1, 1, 1))
    lost = (await versions(cassandra, store, "g/1"))[1] + 1
    loaded = (await store.load(["g/1"], 9, {"g/1": 1}))["g/1"]
    assert loaded.head.seq == 1
    await land(cassandra, store, "g/1", range(2, 4), lost)
    # Before the next commit, after it, and when another takes over.
    assert (await store.load(["g/1"], 9))["g/1"].head.seq == 1
    assert await store.read("g/1", limit=9) == payloads(1, 1)
    await store.commit(written("g/1", 2, 2, 1))
    assert await store.read("g/1", after=0, limit=9) == payloads(1, 2)
    async with another_store(cassandra) as other:
        assert (await other.load(["g/1"], 9, {"g/1": 2}))["g/1"].tail == payloads(1, 2)


async def test_what_lands_after_another_took_up_an_open_log_is_never_seen(
    cassandra: Connected, store: CassandraStore
) -> None:
    """Not before the new writer has written, and not where it puts the log away without."""
    await store.load(["g/1"], 9, {"g/1": 1})
    await store.commit(written("g/1", 1, 2, 1))
    late = (await versions(cassandra, store, "g/1"))[2] + 1
    expected = payloads(1, 2)
    async with another_store(cassandra) as writer, another_store(cassandra) as reader:
        await writer.load(["g/1"], 9, {"g/1": 2})
        await land(cassandra, store, "g/1", range(3, 4), late)
        assert await reader.read("g/1", after=0, limit=9) == expected
        await writer.put_away({"g/1": 2})
        assert await reader.read("g/1", after=0, limit=9) == expected
        assert await reader.heads(["g/1"]) == {"g/1": Head(2, 1002)}
        assert (await reader.load(["g/1"], 9, {"g/1": 3}))["g/1"].tail == expected


async def test_a_commit_that_was_given_up_is_there_as_a_whole_or_void(
    cassandra: Connected, store: CassandraStore
) -> None:
    """Given up at any of its steps; then the same writer goes on, under the same epoch."""
    head = 0
    await store.load(["g/1"], 0, {"g/1": 1})
    for step in range(12):
        async with trio.open_nursery() as nursery:
            commit = written("g/1", head + 1, head + 3, 1)
            commit.members = [Member("g/1", step + 1)]
            nursery.start_soon(store.commit, commit)
            for _ in range(step):
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
        loaded = (await store.load(["g/1"], 99, {"g/1": 1}))["g/1"]
        assert loaded.head.seq in (head, head + 3)
        whole = loaded.head.seq > head
        assert (Member("g/1", step + 1) in loaded.members) == whole
        head = loaded.head.seq
        # What had not landed may still do so, and counts no more.
        await all_back(store.bridge)
        assert (await store.load(["g/1"], 99))["g/1"].head.seq == head
        await store.commit(written("g/1", head + 1, head + 1, 1))
        head += 1
        assert len(await store.read("g/1", after=0, limit=999)) == head


@contextmanager
def losing_round(store: CassandraStore, number: int) -> Iterator[None]:
    """The writes of the round of this number, from 0 on, never take place."""
    send, left = store.bridge.all, number

    async def all_(statements: Sequence[Any], profile: str) -> list[Any]:
        nonlocal left
        if profile == WRITE:
            left -= 1
            if left == -1:
                await trio.lowlevel.checkpoint()
                raise Unavailable("lost", applied=None)
        return await send(statements, profile)

    with patch.object(store.bridge, "all", all_):
        yield


@pytest.mark.parametrize("lost", range(5))
@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("storage.cassandra.log.BUCKET_ENTRIES", 3),
        ("storage.cassandra.writing.PART_MAX_ROWS", 1),
        ("storage.cassandra.writing.PART_MAX_BYTES", 10),
    ],
    ids=["at a bucket's border", "of many rows", "of many bytes"],
)
async def test_a_commit_in_several_parts_is_there_as_a_whole_or_not_at_all(
    cassandra: Connected, store: CassandraStore, name: str, most: int, lost: int
) -> None:
    """Checkpoint, two parts, what follows; in the last case nothing is lost."""
    await store.load(["g/1"], 0, {"g/1": 1})
    await store.commit(written("g/1", 1, 1, 1))
    turn = written("g/1", 2, 3, 1)
    turn.members = [Member("g/1", 7, since=2)]
    turn.revisions = [Revision("g/1", 1, payload(1, "recalled"))]
    with patch(name, most):
        with losing_round(store, lost):
            if lost < 4:
                with pytest.raises(Unavailable):
                    await store.commit(turn)
            else:
                await store.commit(turn)
        loaded = (await store.load(["g/1"], 9, {"g/1": 1}))["g/1"]
        if lost < 3:
            assert (loaded.tail, loaded.members) == (payloads(1, 1), [])
            # One of the seqs of what is left over; the others must not follow it.
            await store.commit(written("g/1", 2, 2, 1))
            expected = payloads(1, 2)
        else:
            expected = [payload(1, "recalled"), *payloads(2, 3)]
            assert (loaded.tail, loaded.members) == (expected, turn.members)
        async with another_store(cassandra) as other:
            assert await other.read("g/1", after=0, limit=9) == expected
            assert (await other.load(["g/1"], 9, {"g/1": 2}))["g/1"].tail == expected


async def test_what_follows_is_not_lost_where_a_commit_in_doubt_is_put_away(
    store: CassandraStore,
) -> None:
    """The rows are durable, and the writer does not load the log again."""
    await store.load(["g/1"], 0, {"g/1": 1})
    await store.commit(written("g/1", 1, 1, 1))
    turn = written("g/1", 2, 2, 1)
    turn.members = [Member("g/1", 7, since=2)]
    with losing_round(store, 1), pytest.raises(Unavailable):
        await store.commit(turn)
    await store.put_away({"g/1": 1})
    assert await store.heads(["g/1"]) == {"g/1": Head(2, 1002)}
    assert (await store.load(["g/1"], 0, {"g/1": 2}))["g/1"].members == turn.members


async def test_what_follows_from_an_entry_is_done_again_after_a_crash(
    cassandra: Connected, store: CassandraStore
) -> None:
    """The entry was durable, and then the writer was gone."""
    await store.load(["g/1", "d/5/9"], 0, {"g/1": 1, "d/5/9": 1})
    await store.commit(written("g/1", 1, 1, 1))
    first = (await versions(cassandra, store, "g/1"))[1]
    changes = Changes(group=group(1), members={5: ("owner", 2), 6: None})
    await land(cassandra, store, "g/1", range(2, 3), first + 1, changes)
    await land(cassandra, store, "d/5/9", range(1, 2), first + 1, Changes(direct=(5, 9)))
    async with another_store(cassandra) as other:
        assert (await other.load(["g/1"], 9))["g/1"].members == [], "who looks does nothing"
        loaded = await other.load(["g/1", "d/5/9"], 9, {"g/1": 2, "d/5/9": 2})
        assert loaded["g/1"].head == Head(2, 1002)
        assert loaded["g/1"].group == group(1)
        assert loaded["g/1"].members == [Member("g/1", 5, "owner", 2)]
        assert {m.conv for m in await other.memberships(5)} == {"g/1", "d/5/9"}


async def test_a_mark_that_only_the_log_has_is_told_to_the_user_again(
    cassandra: Connected, store: CassandraStore
) -> None:
    await store.load(["d/5/9"], 0, {"d/5/9": 1})
    await store.commit(written("d/5/9", 1, 5, 1))
    version = (await versions(cassandra, store, "d/5/9"))[1] + 1
    bind = cassandra.statements.bind
    await store.bridge.one(bind("put_mark", version, 4, 4, "d/5/9", 5), WRITE)
    assert [m.read for m in await store.memberships(5)] == [0]
    async with another_store(cassandra) as other:
        await other.load(["d/5/9"], 0, {"d/5/9": 2})
        assert [m.read for m in await other.memberships(5)] == [4]


async def test_nothing_follows_from_an_entry_behind_the_fence(
    cassandra: Connected, store: CassandraStore
) -> None:
    """Another took the log up, and has not written yet, when the old writer's commit lands."""
    await store.load(["g/1"], 9, {"g/1": 1})
    await store.commit(written("g/1", 1, 2, 1))
    async with another_store(cassandra) as other:
        await other.load(["g/1"], 9, {"g/1": 2})
        late = written("g/1", 3, 3, 1)
        late.members, late.groups = [Member("g/1", 5)], [group(1)]
        late.revisions = [Revision("g/1", 1, payload(1, "late"))]
        await store.commit(late)
        assert await other.members("g/1", after=0, limit=9) == []
        assert await other.groups([1]) == {}
        await other.commit(written("g/1", 3, 3, 2))
        assert await other.read("g/1", limit=9) == payloads(1, 3)


async def test_nothing_follows_where_another_settled_the_log_and_set_no_fence(
    cassandra: Connected, store: CassandraStore
) -> None:
    """It looked before there was a row to fence, and settled what it found then."""
    await store.load(["g/1"], 9, {"g/1": 1})
    await store.commit(written("g/1", 1, 2, 1))
    version = version_of(2, 1)
    head = (version, 2, 1002, version, True, *place("g/1"))
    await store.bridge.one(cassandra.statements.bind("put_head", *head), WRITE)
    late = written("g/1", 3, 3, 1)
    late.members, late.groups = [Member("g/1", 5)], [group(1)]
    await store.commit(late)
    assert await store.members("g/1", after=0, limit=9) == []


async def test_a_process_alone_counts_on_from_its_last_life(
    cassandra: Connected, store: CassandraStore
) -> None:
    await store.commit(appending("g/1", 1, 2))
    first = max((await versions(cassandra, store, "g/1")).values())
    async with another_store(cassandra) as again:
        with patch("storage.cassandra.versions.time.time_ns", return_value=0):
            await again.commit(appending("g/1", 3, 3))
            assert await again.read("g/1", limit=9) == payloads(1, 3)
    found = await versions(cassandra, store, "g/1")
    assert found[3] > first
    assert epoch_of(found[3]) == 0


@pytest.mark.parametrize("epochs", [(0, 0), (1, 1), (1, 2)])
async def test_settings_are_replaced_by_who_has_a_slower_clock(
    cassandra: Connected, store: CassandraStore, epochs: tuple[int, int]
) -> None:
    fast = time.time_ns() + 3_600 * 10**9
    with patch("storage.cassandra.versions.time.time_ns", return_value=fast):
        await store.put_settings(Settings(conv="g/1", user=5, muted=True, draft="old"), epochs[0])
    async with another_store(cassandra) as other:
        found = await other.settings(5, "g/1")
        assert found is not None
        found.draft = "new"
        await other.put_settings(found, epochs[1])
        assert await store.settings(5, "g/1") == found


async def test_a_checkpoint_follows_its_log(cassandra: Connected, store: CassandraStore) -> None:
    """So that whoever takes it over has little to look at."""
    await store.load(["g/1"], 0, {"g/1": 1})
    with patch("storage.cassandra.writing.CHECKPOINT_ENTRIES", 10):
        for number in range(7):
            await store.commit(written("g/1", 5 * number + 1, 5 * number + 5, 1))
    bind = cassandra.statements.bind
    ((seq, ts, *_),) = await store.bridge.one(bind("head", *place("g/1")), READ)
    assert (seq, ts) == (30, 1030)
    async with another_store(cassandra) as other:
        assert await other.heads(["g/1"]) == {"g/1": Head(30, 1030, open=True)}
        assert (await other.load(["g/1"], 0, {"g/1": 2}))["g/1"].head == Head(35, 1035)


@pytest.mark.parametrize("bucket", [1, 3, 10])
async def test_a_log_goes_on_from_bucket_to_bucket(
    cassandra: Connected, store: CassandraStore, bucket: int
) -> None:
    with patch("storage.cassandra.log.BUCKET_ENTRIES", bucket):
        await store.load(["g/1"], 0, {"g/1": 1})
        await store.commit(written("g/1", 1, 7, 1))
        await store.commit(written("g/1", 8, 20, 1))
        revised = payload(4, "edited")
        await store.commit(Commit(revisions=[Revision("g/1", 4, revised)], epochs={"g/1": 1}))
        expected = [*payloads(1, 3), revised, *payloads(5, 20)]
        async with another_store(cassandra) as other:
            loaded = (await other.load(["g/1"], 12, {"g/1": 2}))["g/1"]
            assert (loaded.head, loaded.tail) == (Head(20, 1020), expected[-12:])
            for after, before, limit in [
                (None, None, 9),
                (0, None, 99),
                (6, None, 5),
                (None, 12, 7),
                (None, 99, 30),
                (2, 18, 99),
            ]:
                window = [
                    entry
                    for seq, entry in enumerate(expected, 1)
                    if (after is None or seq > after) and (before is None or seq < before)
                ]
                window = window[-limit:] if after is None else window[:limit]
                found = await other.read("g/1", after=after, before=before, limit=limit)
                assert found == window


async def test_a_commit_may_be_larger_than_any_batch(
    cassandra: Connected, store: CassandraStore
) -> None:
    convs = [f"g/{number}" for number in range(1, 400)]
    entries = [payload(seq, "x" * 3000) for seq in range(1, 3)]
    with patch.multiple("storage.cassandra.writing", PART_MAX_ROWS=50, PART_MAX_BYTES=100_000):
        await store.commit(
            Commit(
                appends=[
                    Append("g/1000", 1, payloads(1, 1200), 7),
                    *(Append(conv, 1, entries, 2) for conv in convs),
                ],
                members=[Member("g/1000", user) for user in range(1, 500)],
                marks=[Mark(conv, 5, read=2) for conv in convs],
            )
        )
    assert await store.read("g/1000", after=0, limit=2000) == payloads(1, 1200)
    assert len(await store.members("g/1000", after=0, limit=1000)) == 499
    async with another_store(cassandra) as other:
        heads = await other.heads([*convs, "g/1000"])
        assert heads.pop("g/1000") == Head(1200, 7)
        assert heads == dict.fromkeys(convs, Head(2, 2))


async def test_who_reads_the_same_page_at_once_shares_one_query(
    cassandra: Connected, store: CassandraStore
) -> None:
    await store.commit(appending("g/1", 1, 20))
    most = 0
    pages: list[list[bytes]] = []

    async def read() -> None:
        nonlocal most
        pages.append(await store.read("g/1", before=11, limit=5))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(read)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            most = max(most, store.bridge.under_way)
    assert pages == [payloads(6, 10)] * 100
    assert 0 < most <= 2, "one head and one page"


async def test_who_joins_a_query_is_not_lost_with_the_one_who_asked(
    cassandra: Connected, store: CassandraStore
) -> None:
    await store.commit(appending("g/1", 1, 20))
    joined: list[list[bytes]] = []

    async def join() -> None:
        joined.append(await store.read("g/1", before=11, limit=5))

    async with trio.open_nursery() as outer:
        with trio.CancelScope() as first:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: store.read("g/1", before=11, limit=5))
                await trio.lowlevel.checkpoint()
                outer.start_soon(join)
                await trio.lowlevel.checkpoint()
                first.cancel()
    assert joined == [payloads(6, 10)]


async def test_an_entry_to_revise_that_is_not_there_is_no_success(
    cassandra: Connected, store: CassandraStore
) -> None:
    await store.commit(appending("g/1", 1, 3))
    await trio.to_thread.run_sync(
        cassandra.session.execute,
        f"DELETE FROM {cassandra.settings.keyspace}.timeline"
        " WHERE conv = 'g/1' AND bucket = 0 AND seq = 2",
    )
    with pytest.raises(Unavailable, match="entry 2") as caught:
        await store.commit(Commit(revisions=[Revision("g/1", 2, payload(2))]))
    assert caught.value.applied is False


async def test_nothing_is_written_without_an_epoch_where_others_may_write(
    store: CassandraStore,
) -> None:
    await store.load(["g/1"], 0, {"g/1": 1})
    with pytest.raises(ValueError, match="g/2"):
        await store.commit(
            Commit(appends=[append("g/1", 1, 1), append("g/2", 1, 1)], epochs={"g/1": 1})
        )
    assert await store.read("g/1", limit=9) == []


async def test_a_process_alone_does_again_what_its_last_life_left_undone(
    cassandra: Connected, store: CassandraStore
) -> None:
    await store.commit(appending("g/1", 1, 1))
    first = (await versions(cassandra, store, "g/1"))[1]
    await land(cassandra, store, "g/1", range(2, 3), first + 1, Changes(members={5: ("owner", 2)}))
    async with another_store(cassandra) as again:
        loaded = (await again.load(["g/1"], 9))["g/1"]
        assert (loaded.head.seq, loaded.members) == (2, [Member("g/1", 5, "owner", 2)])
        await again.commit(appending("g/1", 3, 3))
        assert (await again.heads(["g/1"]))["g/1"] == Head(3, 1003)


@pytest.mark.parametrize("remembered", [True, False])
async def test_what_is_taken_up_while_it_is_put_away_stays_in_hand(
    cassandra: Connected, store: CassandraStore, remembered: bool
) -> None:
    """Putting away reads; meanwhile the same node takes the log up again and goes on writing."""
    for conv in ("g/1", "g/2"):
        await store.load([conv], 0, {conv: 1})
        await store.commit(written(conv, 1, 2, 1))
    # What a failed commit makes forgotten has to be read for being put away.
    store._known.doubt(["g/2"] if remembered else ["g/1", "g/2"])
    walks = store._taking.log.walks

    async def slow_walks(convs: Sequence[str]) -> list[Walk]:
        found = await walks(convs)
        await store.load(["g/1"], 0, {"g/1": 1})
        await store.commit(written("g/1", 3, 3, 1))
        return found

    with patch.object(store._taking.log, "walks", slow_walks):
        await store.put_away({"g/1": 1, "g/2": 1})
    await store.commit(written("g/1", 4, 4, 1))
    async with another_store(cassandra) as other:
        heads = await other.heads(["g/1", "g/2"])
        assert heads["g/1"].open, "only its writer knows how far it is"
        assert heads["g/2"] == Head(2, 1002)
        assert (await other.load(["g/1"], 9, {"g/1": 2}))["g/1"].tail == payloads(1, 4)
