"""The durable store of one process: SQLite with a log, one thread that writes, a few that read."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import trio

from storage.errors import SchemaTooNew, Unavailable
from storage.sqlite.append import Appender
from storage.sqlite.connection import connect_reader, connect_writer
from storage.sqlite.lock import only_broker
from storage.sqlite.readers import Readers
from storage.sqlite.schema import migrate
from storage.sqlite.store import SqliteStore
from storage.sqlite.writer import Writer

__all__ = ["SqliteStore", "open_sqlite"]


@asynccontextmanager
async def open_sqlite(
    path: Path, *, readers: int = 2, exclusive: bool = False
) -> AsyncIterator[SqliteStore]:
    """The store in the database at `path`, made or migrated as needed.

    `exclusive` is for the broker, the only one that may append to logs: a second one is refused.
    Others may use accounts and sessions beside it. On leaving, all accepted writes are done.

    Raises `Unavailable` (naming the path) where the file cannot be opened and written, is no
    database or somebody else's, or has a broker; `SchemaTooNew`.
    """
    with ExitStack() as held:
        writing, reading = await trio.to_thread.run_sync(_open, path, readers, exclusive, held)
        appender = Appender()
        writer = Writer(writing, appender, alone=exclusive)
        pool = Readers(reading)
        try:
            yield SqliteStore(writer, pool, appender)
        finally:
            await pool.aclose()
            await writer.aclose()


def _open(
    path: Path, readers: int, exclusive: bool, held: ExitStack
) -> tuple[sqlite3.Connection, list[sqlite3.Connection]]:
    with _naming(path):
        if exclusive:
            held.enter_context(only_broker(path))
        writing = connect_writer(path)
        held.callback(writing.close)
        migrate(writing)
        _prove_writable(writing)
        reading = []
        for _ in range(readers):
            reading.append(connect_reader(path))
            held.callback(reading[-1].close)
        return writing, reading


def _prove_writable(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE counter SET probe = 1 - probe")
    connection.execute("COMMIT")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except SchemaTooNew as error:
        raise SchemaTooNew(f"{path}: {error}") from error
    except Unavailable as error:
        message = str(error)
        raise Unavailable(message if str(path) in message else f"{path}: {message}") from error
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(f"{path}: cannot be opened: {error}") from error
