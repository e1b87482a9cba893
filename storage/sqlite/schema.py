"""Bring a database to the schema of this version: one SQL file a step, one transaction a file.

`PRAGMA user_version` counts the steps taken. Never goes back, and never touches what a newer
version has written.
"""

from __future__ import annotations

import re
import sqlite3
from importlib import resources

from storage.errors import SchemaTooNew, Unavailable
from storage.sqlite.connection import APPLICATION_ID

_STEP = re.compile(r"(\d{4})_\w+\.sql")


def steps() -> list[str]:
    """The SQL of each step, in order; step 1 is the first."""
    files = {
        int(match[1]): file.read_text(encoding="utf-8")
        for file in (resources.files("storage.sqlite") / "migrations").iterdir()
        if (match := _STEP.fullmatch(file.name))
    }
    if sorted(files) != list(range(1, len(files) + 1)):
        raise RuntimeError(f"the numbers of the migrations have a hole: {sorted(files)}")
    return [files[number] for number in sorted(files)]


def migrate(connection: sqlite3.Connection, *, upto: int | None = None) -> None:
    """Take the steps that are missing (`upto` a version, for tests).

    Raises `SchemaTooNew`, `Unavailable` for a database of some other program, `sqlite3.Error`.
    """
    known = steps()[:upto]
    while True:
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = _version(connection)
            if version > len(known):
                raise SchemaTooNew(
                    f"the data has schema version {version}; this Parley knows {len(known)}"
                )
            if version == len(known):
                connection.execute("ROLLBACK")
                return
            for statement in _statements(known[version]):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        raise Unavailable("the database belongs to another program")
    return int(version)


def _statements(script: str) -> list[str]:
    # `executescript` would commit the open transaction first.
    statements, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements
