"""Connections to the database file, and the one seam where SQLite's errors become our own.

Knows files, pragmas and error codes; nothing of what is stored.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.errors import Unavailable

APPLICATION_ID = 0x5061726C
"""`Parl`, in the file's header: tells our files from anybody else's."""

BUSY_TIMEOUT_MS = 5_000
"""How long to wait for another process (`parley user`, a backup) to finish its transaction."""

PAGE_BYTES = 8_192
"""Of a new file."""

CHECKPOINT_PAGES = 2_000
"""The log is folded into the file when it has this many pages (16 MB): about 10 ms of work, and
rarely enough that pages which change in every commit are folded once for many."""

LOG_MAX_BYTES = 64 * 1024 * 1024
"""The log's file is cut back to this after a long reader or a large import has let it grow."""

WRITER_CACHE_KIB = 64 * 1024
READER_CACHE_KIB = 16 * 1024
CACHED_STATEMENTS = 128

_NOTHING_WRITTEN = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY})
"""Failures of a COMMIT after which its transaction cannot surface again. Any other, such as a
failed sync, may have left a whole transaction in the log, which a later recovery would find."""


_CALLERS_FAULT = (
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    sqlite3.DataError,
)


@contextmanager
def translated(doing: str, *, committing: bool = False) -> Iterator[None]:
    """Turn SQLite's errors into `Unavailable`; `committing` when the outcome may be unknown.

    What breaks a constraint or cannot be bound is the caller's fault and becomes `ValueError`.
    """
    try:
        yield
    except _CALLERS_FAULT as error:
        raise ValueError(f"{doing}: {error}") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        unknown = committing and code not in _NOTHING_WRITTEN
        raise Unavailable(f"{doing}: {error}", applied=None if unknown else False) from error


def connect_writer(path: Path) -> sqlite3.Connection:
    """The one connection that writes; makes the file if there is none.

    Raises `sqlite3.Error`, also for a file that is no database.
    """
    connection = _connect(path, WRITER_CACHE_KIB)
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_MAX_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write. Raises `sqlite3.Error`."""
    connection = _connect(path, READER_CACHE_KIB)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _connect(path: Path, cache_kib: int) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=CACHED_STATEMENTS,
        timeout=BUSY_TIMEOUT_MS / 1000,
    )
    connection.execute(f"PRAGMA cache_size = -{cache_kib}")
    return connection
