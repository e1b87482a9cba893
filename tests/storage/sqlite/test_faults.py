"""A disk that fills up, a database that is locked, tasks that are cancelled: the store goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from storage.errors import Unavailable
from storage.records import Append, Commit, Head, Settings
from storage.sqlite import SqliteStore, open_sqlite
from storage.sqlite import connection as connecting
from tests.conformance.making import appending, payload, payloads, session, user
from tests.storage.sqlite.helpers import Door, files_end_at


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_sqlite(tmp_path / "store.sqlite", exclusive=True) as opened:
        yield opened


async def _append_until_refused(store: SqliteStore) -> tuple[int, Unavailable]:
    """The number of entries that were acknowledged, and why the next one was not."""
    for seq in range(1, 10_000):
        try:
            await store.commit(
                Commit(appends=[Append("g/1", seq, [payload(seq, "x" * 9000)], 1000 + seq)])
            )
        except Unavailable as error:
            return seq - 1, error
    raise AssertionError("the disk never filled up")


async def test_a_full_database_refuses_and_goes_on_when_there_is_room(store: SqliteStore) -> None:
    def limit(pages: int) -> Callable[[sqlite3.Connection], object]:
        return lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone()

    await store._write(limit(60))
    acknowledged, error = await _append_until_refused(store)
    assert "full" in str(error)
    assert error.applied is False
    assert acknowledged > 0
    assert await store.heads(["g/1"]) == {"g/1": Head(seq=acknowledged, ts=1000 + acknowledged)}
    await store._write(limit(10_000))
    await store.commit(appending("g/1", acknowledged + 1, acknowledged + 1))
    assert len(await store.read("g/1", limit=10_000)) == acknowledged + 1


async def test_a_full_disk_refuses_and_goes_on_when_there_is_room(store: SqliteStore) -> None:
    await store.ping()
    with files_end_at(600_000):
        acknowledged, error = await _append_until_refused(store)
        assert acknowledged > 0
        assert error.applied is None
        for _ in range(3):
            with pytest.raises(Unavailable):
                await store.commit(
                    Commit(
                        appends=[Append("g/1", acknowledged + 1, [payload(1, "x" * 400_000)], 1)]
                    )
                )
        assert (await store.heads(["g/1"]))["g/1"].seq == acknowledged
        with pytest.raises(Unavailable):
            await store.create_users([user("ana", bio="x" * 400_000)], [None])
    await store.ping()
    await store.commit(appending("g/1", acknowledged + 1, acknowledged + 1))
    assert len(await store.read("g/1", limit=10_000)) == acknowledged + 1
    assert await store.users_by_name(["ana"]) == {}


async def test_ping_tells_of_a_disk_on_which_nothing_can_be_written(store: SqliteStore) -> None:
    await store.ping()
    with files_end_at(0), pytest.raises(Unavailable):
        await store.ping()
    await store.ping()


async def test_a_database_that_another_process_holds_is_unavailable_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "BUSY_TIMEOUT_MS", 20)
    path = tmp_path / "store.sqlite"
    async with open_sqlite(path, exclusive=True) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked") as refused:
            await store.commit(appending("g/1", 1, 1))
        assert refused.value.applied is False
        assert await store.read("g/1", limit=1) == []
        other.execute("ROLLBACK")
        await store.commit(appending("g/1", 1, 1))
        other.close()


Call = Callable[[SqliteStore], Awaitable[object]]

WRITES: dict[str, Call] = {
    "commit": lambda store: store.commit(appending("g/1", 3, 3)),
    "ping": lambda store: store.ping(),
    "next_group_id": lambda store: store.next_group_id(),
    "put_settings": lambda store: store.put_settings(Settings(conv="g/1", user=1)),
    "create_users": lambda store: store.create_users([user("bo")], [None]),
    "update_user": lambda store: store.update_user(1, {"bio": "x"}),
    "set_password": lambda store: store.set_password(1, "x"),
    "seen": lambda store: store.seen({1: 5}),
    "create_session": lambda store: store.create_session(session("t", 1, b"t")),
    "rotate": lambda store: store.rotate(b"s", b"u", now=1, expires=9),
    "end_session": lambda store: store.end_session("s", now=1),
    "purge": lambda store: store.purge(now=1),
}
READS: dict[str, Call] = {
    "load": lambda store: store.load(["g/1"], 5),
    "read": lambda store: store.read("g/1", limit=5),
    "heads": lambda store: store.heads(["g/1"]),
    "memberships": lambda store: store.memberships(1),
    "find_groups": lambda store: store.find_groups("", after=0, limit=5),
    "groups": lambda store: store.groups([1]),
    "members": lambda store: store.members("g/1", after=0, limit=5),
    "settings": lambda store: store.settings(1, "g/1"),
    "users": lambda store: store.users([1]),
    "users_by_name": lambda store: store.users_by_name(["ana"]),
    "find_users": lambda store: store.find_users("a", limit=5),
    "list_users": lambda store: store.list_users(after=0, limit=5),
    "password_hash": lambda store: store.password_hash(1),
    "ended_sessions": lambda store: store.ended_sessions(["s"]),
}


@pytest.mark.parametrize("name", [*WRITES, *READS])
async def test_any_call_may_be_cancelled_while_it_waits(tmp_path: Path, name: str) -> None:
    call = (WRITES | READS)[name]
    async with open_sqlite(tmp_path / "store.sqlite", exclusive=True, readers=1) as store:
        await store.create_users([user("ana")], [None])
        await store.create_session(session("s", 1, b"s"))
        await store.commit(appending("g/1", 1, 2))
        door = Door()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store._write if name in WRITES else store._read, door)
            await door.reached()
            with trio.CancelScope() as scope:
                nursery.start_soon(_cancel_when_blocked, scope)
                await call(store)
            assert scope.cancelled_caught
            door.open()
        # The same again, before it could even begin.
        with trio.CancelScope() as scope:
            scope.cancel()
            await call(store)
        assert scope.cancelled_caught
        head = (await store.heads(["g/1"]))["g/1"].seq
        if name == "commit":
            await store.ping()
            head = (await store.heads(["g/1"]))["g/1"].seq
            assert head == 3
        await store.commit(appending("g/1", head + 1, head + 1))
        assert await store.read("g/1", limit=9) == payloads(1, head + 1)


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_leaving_while_cancelled_still_finishes_what_was_accepted(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    door = Door()
    with trio.CancelScope() as scope:
        async with open_sqlite(path, exclusive=True) as store, trio.open_nursery() as nursery:
            nursery.start_soon(store._write, door)
            await door.reached()
            nursery.start_soon(store.commit, appending("g/1", 1, 5))
            await wait_all_tasks_blocked()
            scope.cancel()
            door.open()
    async with open_sqlite(path, exclusive=True) as store:
        assert await store.read("g/1", limit=9) == payloads(1, 5)
