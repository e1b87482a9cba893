"""A database of any older version becomes one of this version; a newer one is left alone."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from unittest.mock import patch

import pytest

from storage.errors import SchemaTooNew, Unavailable
from storage.sqlite import open_sqlite, schema
from storage.sqlite.connection import APPLICATION_ID
from storage.sqlite.schema import migrate, steps


def _database(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def _schema(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(connection.execute("SELECT name, sql FROM sqlite_schema"))


@pytest.mark.parametrize("version", range(len(steps()) + 1))
def test_every_older_version_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    old, new = _database(tmp_path / "old"), _database(tmp_path / "new")
    migrate(old, upto=version)
    assert old.execute("PRAGMA user_version").fetchone() == (version,)
    migrate(old)
    migrate(new)
    assert old.execute("PRAGMA user_version").fetchone() == (len(steps()),)
    assert old.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert _schema(old) == _schema(new)


def test_a_step_that_fails_leaves_the_version_before_it(tmp_path: Path) -> None:
    database = _database(tmp_path / "x")
    migrate(database)
    before = _schema(database)
    broken = [*steps(), "CREATE TABLE fine (x);\nCREATE TABLE user (x);\n"]
    with (
        patch.object(schema, "steps", lambda: broken),
        pytest.raises(sqlite3.OperationalError, match="already exists"),
    ):
        migrate(database)
    assert _schema(database) == before
    assert database.execute("PRAGMA user_version").fetchone() == (len(steps()),)
    assert not database.in_transaction


async def test_a_newer_version_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    async with open_sqlite(path):
        pass
    _database(path).execute(f"PRAGMA user_version = {len(steps()) + 1}")
    with pytest.raises(SchemaTooNew, match=r"store\.sqlite.*version 2"):
        async with open_sqlite(path):
            pass
    assert _database(path).execute("PRAGMA user_version").fetchone() == (len(steps()) + 1,)


async def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "theirs.sqlite"
    _database(path).execute("CREATE TABLE theirs (x)")
    with pytest.raises(Unavailable, match=r"theirs\.sqlite.*another program"):
        async with open_sqlite(path):
            pass
    assert {name for name, _ in _schema(_database(path))} == {"theirs"}
