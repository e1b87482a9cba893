"""What opening a store finds: its own data, nobody's data, or no way in; each said clearly."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from storage.errors import Unavailable
from storage.sqlite import open_sqlite
from tests.conformance.making import append, appending, payloads, session, user
from tests.storage.sqlite.helpers import files_end_at


async def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    async with open_sqlite(path, exclusive=True) as store:
        (ana,) = await store.create_users([user("ana")], ["hash"])
        await store.create_session(session("s", ana.id, b"one"))
        await store.commit(appending("g/1", 1, 700))
        group = await store.next_group_id()
    async with open_sqlite(path, exclusive=True) as store:
        assert await store.users([ana.id]) == {ana.id: ana}
        assert await store.rotate(b"one", b"two", now=1, expires=2) is not None
        assert await store.read("g/1", limit=1000) == payloads(1, 700)
        assert await store.next_group_id() > group
        with pytest.raises(ValueError, match="head 700"):
            await store.commit(appending("g/1", 700, 700))
        await store.commit(appending("g/1", 701, 701))


async def test_it_is_durable_by_its_settings(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "store.sqlite") as store:

        def pragma(name: str) -> object:
            return lambda db: db.execute(f"PRAGMA {name}").fetchone()[0]

        assert await store._write(pragma("journal_mode")) == "wal"
        assert await store._write(pragma("synchronous")) == 2
        assert await store._read(pragma("query_only")) == 1


async def test_a_second_broker_is_refused_and_others_are_not(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    async with open_sqlite(path, exclusive=True) as broker:
        with pytest.raises(Unavailable, match=r"store\.sqlite: another broker") as refused:
            async with open_sqlite(path, exclusive=True):
                pass
        assert refused.value.applied is False
        async with open_sqlite(path) as beside:
            (ana,) = await beside.create_users([user("ana")], [None])
            await beside.create_session(session("s", ana.id, b"one"))
            assert await broker.users([ana.id]) == {ana.id: ana}
            await broker.set_password(ana.id, "hash")
            assert await beside.ended_sessions(["s"]) == {"s"}
    async with open_sqlite(path, exclusive=True):
        pass


async def test_beside_another_writer_nothing_is_remembered(tmp_path: Path) -> None:
    """Two that are not exclusive see each other's heads, whoever wrote last."""
    path = tmp_path / "store.sqlite"
    async with open_sqlite(path) as one, open_sqlite(path) as other:
        for first in range(1, 20, 2):
            await one.commit(appending("g/1", first, first))
            await other.commit(appending("g/1", first + 1, first + 1))
        with pytest.raises(ValueError, match="head 20"):
            await one.commit(appending("g/1", 20, 20))
        assert await one.read("g/1", limit=99) == payloads(1, 20)


def _no_folder(tmp_path: Path) -> Path:
    return tmp_path / "missing" / "store.sqlite"


def _a_folder(tmp_path: Path) -> Path:
    path = tmp_path / "store.sqlite"
    path.mkdir()
    return path


def _no_database(tmp_path: Path) -> Path:
    path = tmp_path / "store.sqlite"
    path.write_bytes(b"this is no database, but a letter to you" * 100)
    return path


def _where_nobody_writes(_: Path) -> Path:
    return Path("/proc/store.sqlite")


@pytest.mark.parametrize("make", [_no_folder, _a_folder, _no_database, _where_nobody_writes])
@pytest.mark.parametrize("exclusive", [True, False])
async def test_what_cannot_be_opened_is_named(tmp_path: Path, make, exclusive: bool) -> None:
    path = make(tmp_path)
    with pytest.raises(Unavailable) as refused:
        async with open_sqlite(path, exclusive=exclusive):
            pass
    assert str(path) in str(refused.value)
    if make is _no_database:
        assert "not a database" in str(refused.value)


@pytest.mark.parametrize("size", [0, 8192, 40_000])
async def test_a_full_disk_at_the_first_start(tmp_path: Path, size: int) -> None:
    path = tmp_path / "store.sqlite"
    with files_end_at(size), pytest.raises(Unavailable, match=r"store\.sqlite"):
        async with open_sqlite(path, exclusive=True):
            pass
    # With room again the same folder is fine.
    async with open_sqlite(path, exclusive=True) as store:
        await store.commit(appending("g/1", 1, 1))


async def test_a_full_disk_at_a_later_start(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    async with open_sqlite(path) as store:
        await store.commit(appending("g/1", 1, 1))
    with files_end_at(0), pytest.raises(Unavailable, match=r"store\.sqlite"):
        async with open_sqlite(path):
            pass
    async with open_sqlite(path) as store:
        assert await store.read("g/1", limit=9) == payloads(1, 1)


async def test_a_damaged_page_is_unavailable_and_not_wrong(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    async with open_sqlite(path) as store:
        await store.commit(appending("g/1", 1, 300))
        await store.commit(appending("g/2", 1, 300))
    with sqlite3.connect(path) as database:
        (root,) = database.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'chunk'"
        ).fetchone()
        (size,) = database.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)
    async with open_sqlite(path) as store:
        with pytest.raises(Unavailable, match="malformed"):
            await store.read("g/1", limit=9)
        with pytest.raises(Unavailable):
            await store.commit(appending("g/1", 301, 600))
        # What is not damaged still works.
        await store.create_users([user("ana")], [None])
        await store.ping()


async def test_the_lock_outlives_no_failed_opening(tmp_path: Path) -> None:
    path = _no_database(tmp_path)
    with pytest.raises(Unavailable, match="not a database"):
        async with open_sqlite(path, exclusive=True):
            pass
    path.unlink()
    async with open_sqlite(path, exclusive=True) as store:
        await store.commit(appending("g/1", 1, 1))
        assert (await store.load(["g/1"], 9))["g/1"].tail == append("g/1", 1, 1).payloads
