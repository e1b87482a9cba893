"""Bring a keyspace to the schema of this version: one CQL file a step, each statement repeatable.

The table `schema_version` counts the steps taken. Never goes back, and never touches what a newer
version has written. To be run by one at a time.
"""

from __future__ import annotations

import re
from importlib import resources

import trio
from cassandra import InvalidRequest
from cassandra.cluster import Session

from storage.cassandra.connection import connect, told
from storage.cassandra.replication import as_cql, check_replication
from storage.cassandra.settings import CassandraSettings
from storage.errors import SchemaTooNew, Unavailable

_STEP = re.compile(r"(\d{4})_\w+\.cql")
_COMMENT = re.compile(r"--[^\n]*\n")
_VERSIONS = "CREATE TABLE IF NOT EXISTS schema_version (kind int PRIMARY KEY, version int)"


def steps() -> list[list[str]]:
    """The statements of each step, in order; step 1 is the first."""
    files = {
        int(match[1]): file.read_text(encoding="utf-8")
        for file in (resources.files("storage.cassandra") / "migrations").iterdir()
        if (match := _STEP.fullmatch(file.name))
    }
    if sorted(files) != list(range(1, len(files) + 1)):
        raise RuntimeError(f"the numbers of the migrations have a hole: {sorted(files)}")
    return [_statements(files[number]) for number in sorted(files)]


def show(settings: CassandraSettings) -> str:
    """All that `apply` would run on an empty cluster, as CQL."""
    statements = [_keyspace(settings), f"USE {settings.keyspace}", _VERSIONS]
    for number, step in enumerate(steps(), 1):
        statements += [*step, _recorded(number)]
    return "\n\n".join(f"{statement};" for statement in statements) + "\n"


async def apply(settings: CassandraSettings) -> int:
    """Make the keyspace and take the steps that are missing; how many these were.

    Raises `SchemaTooNew`, `Unavailable`, and `UnsafeSettings` where the keyspace is there with
    other copies than are asked for. What was done before a failure is not done again.
    """
    return await trio.to_thread.run_sync(apply_blocking, settings)


def check(session: Session, settings: CassandraSettings) -> None:
    """Raise `Unavailable` or `SchemaTooNew` where a keyspace is not of this version. Blocks."""
    _refuse_newer(version := _version(session, settings), settings)
    if version < len(steps()):
        raise Unavailable(
            f"{settings.where}: the schema is missing or old (version {version} of {len(steps())}):"
            " run `parley schema apply`"
        )


def apply_blocking(settings: CassandraSettings) -> int:
    """`apply` for who has no event loop."""
    cluster = connect(settings)
    try:
        with told(settings):
            session = cluster.connect()
            _change(session, _keyspace(settings), settings)
            check_replication(cluster, settings)
            session.set_keyspace(settings.keyspace)
            _refuse_newer(before := _version(session, settings), settings)
            _change(session, _VERSIONS, settings)
            for number, step in enumerate(steps()[before:], before + 1):
                for statement in step:
                    _change(session, statement, settings)
                session.execute(_recorded(number))
            return len(steps()) - before
    finally:
        cluster.shutdown()


def _change(session: Session, statement: str, settings: CassandraSettings) -> None:
    # No time-out of ours: half a change of the schema would be the worst of all ends.
    future = session.execute_async(statement, timeout=None)
    future.result()
    if not future.is_schema_agreed:
        raise Unavailable(f"{settings.where}: its nodes do not agree on the schema", applied=None)


def _version(session: Session, settings: CassandraSettings) -> int:
    try:
        row = session.execute(
            f"SELECT version FROM {settings.keyspace}.schema_version WHERE kind = 0"
        ).one()
    except InvalidRequest:  # no such table or keyspace
        return 0
    return int(row[0]) if row else 0


def _refuse_newer(version: int, settings: CassandraSettings) -> None:
    if version > len(steps()):
        raise SchemaTooNew(
            f"{settings.where}: the data has schema version {version}; this Parley knows"
            f" {len(steps())}"
        )


def _recorded(number: int) -> str:
    return f"INSERT INTO schema_version (kind, version) VALUES (0, {number})"


def _keyspace(settings: CassandraSettings) -> str:
    copies = as_cql(settings.wanted_replication)
    return f"CREATE KEYSPACE IF NOT EXISTS {settings.keyspace} WITH replication = {copies}"


def _statements(script: str) -> list[str]:
    parts = (part.strip() for part in _COMMENT.sub("", script).split(";"))
    return [
        part.replace("CREATE TABLE ", "CREATE TABLE IF NOT EXISTS ", 1) for part in parts if part
    ]
