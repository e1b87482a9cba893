"""Merging: what gathered in `recent` becomes few rows of `chunk`, and reads as it did before."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from storage.records import Append, Head
from storage.sqlite import history
from storage.sqlite.append import Appender
from storage.sqlite.chunks import CHUNK_MAX_BYTES, CHUNK_MAX_ENTRIES
from storage.sqlite.connection import connect_writer
from storage.sqlite.pieces import Pieces
from storage.sqlite.schema import migrate
from tests.conformance.making import appending, payload


class Logs:
    """Logs that are written and merged in one thread, and what they should be."""

    def __init__(self, path: Path) -> None:
        self.db = connect_writer(path)
        migrate(self.db)
        self.appender = Appender()
        self.merge = Pieces().merge
        self.expected: dict[str, list[bytes]] = {}

    def add(self, conv: str, *bodies: str) -> None:
        log = self.expected.setdefault(conv, [])
        entries = [payload(len(log) + n, body) for n, body in enumerate(bodies, 1)]
        commit = appending(conv, 1, 1)
        commit.appends = [Append(conv, len(log) + 1, entries, 2000 - len(log))]
        self.appender.commit(self.db, commit)
        log += entries

    def check(self) -> None:
        for conv, log in self.expected.items():
            assert history.read(self.db, conv, 0, None, 10_000) == log
            assert history.read(self.db, conv, None, None, 3) == log[-3:]

    def rows(self, table: str) -> list[tuple[int, int]]:
        return list(self.db.execute(f"SELECT first, last FROM {table} ORDER BY conv, last"))


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path / "x.sqlite")


def test_neighbours_become_one_row(logs: Logs) -> None:
    for n in range(20):
        logs.add("g/1", *"ab"[: 1 + n % 2])
        logs.add("g/2", "x")
    head = history.heads(logs.db, ["g/1"])
    logs.merge(logs.db)
    logs.check()
    assert (logs.rows("recent"), logs.rows("chunk")) == ([], [(1, 30), (1, 20)])
    # The time is that of the last entry, also when clocks went backwards.
    assert history.heads(logs.db, ["g/1"]) == head == {"g/1": Head(seq=30, ts=2000 - 28)}


def test_a_large_chunk_between_small_ones_stays_between_them(logs: Logs) -> None:
    for body in ("a", "b", "x" * 5000, "c", "d", "y" * 5000):
        logs.add("g/1", body)
    logs.add("g/2", "other")
    logs.merge(logs.db)
    logs.check()
    assert logs.rows("chunk") == [(1, 2), (3, 3), (4, 5), (6, 6), (1, 1)]
    assert logs.rows("recent") == []
    logs.add("g/1", "e")
    logs.check()


@pytest.mark.parametrize("body", ["x" * 900, "x"], ids=["bytes", "entries"])
def test_a_merged_row_is_bounded(logs: Logs, body: str) -> None:
    for _ in range(2 * CHUNK_MAX_ENTRIES + 100):
        logs.add("g/1", body)
    logs.merge(logs.db)
    logs.check()
    assert 1 < len(logs.rows("chunk")) <= 4
    assert all(last - first < 2 * CHUNK_MAX_ENTRIES for first, last in logs.rows("chunk"))
    (largest,) = logs.db.execute("SELECT max(length(data)) FROM chunk").fetchone()
    assert largest <= CHUNK_MAX_BYTES


def test_it_is_due_when_enough_has_gathered_and_not_at_once_after_a_failure(
    logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.sqlite.pieces.MERGE_ROWS", 4)
    appender = logs.appender = Appender()
    for _ in range(3):
        logs.add("g/1", "x")
        assert appender.chore() is None
    logs.add("g/1", "x")
    chore = appender.chore()
    assert chore is not None
    logs.db.execute("ALTER TABLE chunk RENAME TO hidden")
    logs.db.execute("BEGIN")
    with pytest.raises(sqlite3.OperationalError):
        chore(logs.db)
    logs.db.execute("ROLLBACK")
    appender.forget()
    logs.db.execute("ALTER TABLE hidden RENAME TO chunk")
    for _ in range(3):
        logs.add("g/1", "x")
        assert appender.chore() is None
    logs.add("g/1", "x")
    chore = appender.chore()
    assert chore is not None
    chore(logs.db)
    logs.check()
    assert logs.rows("chunk") == [(1, 8)]
    assert appender.chore() is None
