"""What a normal life leaves has no tombstones in it, which every later read would pass over."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import trio

from storage.cassandra import CassandraStore
from storage.cassandra.session import Connected
from storage.cassandra.statements import CQL
from storage.records import Append, Commit, Mark, Member, NodeRecord, Revision, SlotRecord
from storage.records import Settings as OwnSettings
from tests.conformance.making import append, group, payload, payloads, session, user
from tests.helpers.cassandra import another_store, connected, empty_store

LATER = 10**9
READ_TOLD = re.compile(r"Read \d+ live rows and (\d+) tombstone cells")
CONV, DIRECT = "g/1", "d/1/2"


@pytest.fixture
def fresh(cassandra_url: str) -> Iterator[Connected]:
    """A keyspace of its own, since what empties a shared one may leave tombstones."""
    with connected(cassandra_url) as found:
        yield found


async def test_a_normal_life_leaves_none(fresh: Connected) -> None:
    async with empty_store(fresh) as store:
        await _accounts(store)
        await _conversations(store)
        await _reads(store)
        await _nodes(store)
        async with another_store(fresh) as other:
            await _takeover(other)
            await _reads(other)
    assert await trio.to_thread.run_sync(tombstones, fresh) == set()
    # They would have been found.
    keyspace = fresh.settings.keyspace
    for gone in (
        f"DELETE FROM {keyspace}.timeline WHERE conv = '{CONV}' AND bucket = 0 AND seq = 2",
        f"UPDATE {keyspace}.users SET bio = null WHERE id = 1",
    ):
        await trio.to_thread.run_sync(fresh.session.execute, gone)
    assert await trio.to_thread.run_sync(tombstones, fresh) == {"timeline", "users"}


def test_whole_partitions_are_deleted_of_two_small_tables_only() -> None:
    """A server does not count these among the tombstones of a read."""
    deleting = {cql.split(" IF ")[0] for cql in CQL.values() if "DELETE" in cql}
    assert deleting == {
        "DELETE FROM nodes WHERE incarnation = ?",
        "DELETE FROM users_by_name WHERE name_key = ?",
    }


def tombstones(connection: Connected) -> set[str]:
    """Tables that a read of every row finds tombstones in, as the server traces it."""
    session, keyspace = connection.session, connection.settings.keyspace
    found = set()
    for table in session.cluster.metadata.keyspaces[keyspace].tables:
        trace = session.execute(f"SELECT * FROM {keyspace}.{table}", trace=True).get_query_trace()
        told = [READ_TOLD.match(event.description) for event in trace.events]
        counts = [int(match[1]) for match in told if match]
        assert counts, f"{table}: it is not told what was read"
        if any(counts):
            found.add(table)
    return found


async def _accounts(store: CassandraStore) -> None:
    for name in ("ana", "ben"):
        await store.create_users([user(name)], [None if name == "ben" else "hash"])
    await store.update_user(1, {"nickname": "A", "last_seen": 5})
    await store.set_password(1, "another")
    await store.create_session(session("s", 1, b"old", expires=LATER))
    assert await store.rotate(b"old", b"new", now=5, expires=LATER)
    await store.end_session("s", now=6)


async def _conversations(store: CassandraStore) -> None:
    """People come, write, edit, recall, read and go, and one group is dissolved."""
    epochs = {CONV: 1, DIRECT: 1}
    await store.load([CONV, DIRECT], 0, epochs)
    here = [Member(CONV, 1, "owner", 1), Member(CONV, 2, "member", 1)]
    steps = [
        Commit(appends=[append(CONV, 1, 20)], groups=[group(1)], members=here),
        Commit(appends=[Append(DIRECT, 1, payloads(1, 5), 9)]),
        Commit(appends=[append(CONV, 21, 21)], revisions=[Revision(CONV, 3, payload(3, "edited"))]),
        Commit(appends=[append(CONV, 22, 22)], revisions=[Revision(CONV, 3, payload(3, None))]),
        Commit(marks=[Mark(CONV, 1, read=9, delivered=9), Mark(DIRECT, 2, read=5)]),
        Commit(marks=[Mark(CONV, 1, read=22, delivered=22)]),
        Commit(appends=[append(CONV, 23, 23)], gone=[(CONV, 2)]),
        Commit(appends=[append(CONV, 24, 24)], members=[Member(CONV, 2, "member", 24)]),
        Commit(appends=[append(CONV, 25, 25)], groups=[group(1, "Coffee", dissolved=9)]),
    ]
    for commit in steps:
        commit.epochs = epochs
        await store.commit(commit)
    for draft in ("to be said", ""):
        await store.put_settings(OwnSettings(conv=CONV, user=1, draft=draft))
    await store.put_away(epochs)


async def _reads(store: CassandraStore) -> None:
    assert len(await store.read(CONV, after=0, limit=99)) == 25
    assert len(await store.read(CONV, limit=9)) == 9
    assert {place.conv for place in await store.memberships(1)} == {CONV, DIRECT}
    assert len(await store.members(CONV, after=0, limit=9)) == 2
    assert len(await store.find_users("", limit=9)) == 2
    assert len(await store.list_users(after=0, limit=9)) == 2
    await store.find_groups("c", after=0, limit=9)
    await store.ended_sessions(["s"])


async def _nodes(store: CassandraStore) -> None:
    """One stays, and one leaves."""
    for name in ("a", "b"):
        for beat in (1, 2):
            assert await store.beat(NodeRecord(node=name, incarnation=name, beat=beat))
    await store.claim([SlotRecord(slot, "b", 1) for slot in range(4)])
    assert await store.remove("b", 2)
    assert len(await store.nodes()) == 1
    await store.claim([SlotRecord(slot, "a", 2) for slot in range(4)])
    await store.slots()


async def _takeover(store: CassandraStore) -> None:
    """Another writes on."""
    await store.left_open([0, 1, 2])
    loaded = await store.load([CONV, DIRECT], 9, {CONV: 2, DIRECT: 2})
    assert loaded[CONV].head.seq == 25
    await store.commit(Commit(appends=[append(DIRECT, 6, 7)], epochs={DIRECT: 2}))
