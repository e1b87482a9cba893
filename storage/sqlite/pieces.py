"""The two tables that hold the logs: `recent` for small chunks, `chunk` for large and merged ones.

Measured on one core, 500 conversations x 1 payload of 170 bytes a commit, checkpoints and merges
counted in, after 600 such commits: 3.5-4.2 us of CPU a row, against 6.1-7.9 (and growing with the
index) when every row goes straight into `chunk`; 5.4-6.5 with all of the store around it, on a busy
machine. Chunks of 1.4 KB are cheaper without the detour: 8.9 against 11.6. Of the page sizes 8192
was best for both; 1024 and 2048 were worse, as was text in place of conversation numbers (6.6
against 5.4). Statements of many rows cost no less CPU than `executemany` (5.4 against 4.6) but take
the GIL once for 128 rows.

Runs in the writer's thread. What is where never matters to a reader.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from storage.sqlite.chunks import CHUNK_MAX_BYTES, CHUNK_MAX_ENTRIES, split, unpack
from storage.sqlite.rows import Insert

RECENT_MAX_BYTES = 1_024
"""Larger chunks are not merged: they are their own batch."""

MERGE_ROWS = 4_000
"""Rows of `recent` that are merged at once: some 6 ms during which nothing is committed."""

Piece = tuple[int, int, int, int, bytes]
"""The conversation's number, first and last seq, ts, data."""

_COLUMNS = "(conv, first, last, ts, data)"
_TABLES = ("recent", "chunk")
_RECENT, _CHUNK = (Insert(f"{table} {_COLUMNS}", 5) for table in _TABLES)
_HOLDING = """
    SELECT id, first, last, ts, data FROM {table}
    WHERE conv = ? AND last >= ? ORDER BY last LIMIT 1
"""
# Joined in one pass along the index: what nearly every conversation has, a run without a hole,
# short enough for one chunk.
_TS = "(SELECT ts FROM recent AS r WHERE r.conv = g.conv AND r.last = g.last)"
_MERGE_WHOLE = f"""
    INSERT INTO chunk {_COLUMNS}
    SELECT g.conv, g.first, g.last, {_TS}, g.data
    FROM (
        SELECT conv, min(first) AS first, max(last) AS last,
               CAST(group_concat(data, '') AS BLOB) AS data
        FROM recent INDEXED BY recent_place GROUP BY conv
        HAVING sum(last - first + 1) = max(last) - min(first) + 1
           AND max(last) - min(first) < {2 * CHUNK_MAX_ENTRIES}
           AND sum(length(data)) <= {CHUNK_MAX_BYTES}
    ) AS g
"""

# The others: a large chunk may lie between two small ones, so only neighbours are joined. Along a
# run without a hole `last` grows as the running count of entries does. Bounded: the rows of a group
# end within 256 seqs, and each has at most `RECENT_MAX_BYTES`.
_MERGE_RUNS = f"""
    INSERT INTO chunk {_COLUMNS}
    SELECT g.conv, g.first, g.last, {_TS},
           (SELECT CAST(group_concat(data, '') AS BLOB) FROM (
               SELECT data FROM recent AS r
               WHERE r.conv = g.conv AND r.last BETWEEN g.first AND g.last ORDER BY r.last
           ))
    FROM (
        SELECT conv, min(first) AS first, max(last) AS last
        FROM (
            SELECT conv, first, last,
                   last - sum(last - first + 1) OVER (PARTITION BY conv ORDER BY last) AS run
            FROM recent
        )
        GROUP BY conv, run, last / {CHUNK_MAX_ENTRIES}
    ) AS g
"""
_GATHERED_BYTES = "SELECT coalesce(sum(length(data)), 0) FROM recent"
_DELETE_MERGED = "DELETE FROM recent WHERE conv IN (SELECT conv FROM chunk WHERE id > ?)"
_MERGED_BYTES = "SELECT coalesce(sum(length(data)), 0) FROM chunk WHERE id > ?"


class Pieces:
    """Inserts, revises and merges chunks."""

    def __init__(self) -> None:
        self._recent: int | None = None
        self._merge_at = MERGE_ROWS

    def forget(self) -> None:
        """The last transaction may not have happened."""
        self._recent = None

    def insert(self, connection: sqlite3.Connection, pieces: Sequence[Piece]) -> None:
        """Store chunks that follow what is stored."""
        small = [piece for piece in pieces if len(piece[4]) <= RECENT_MAX_BYTES]
        if self._recent is None:
            (self._recent,) = connection.execute("SELECT count(*) FROM recent").fetchone()
        self._recent += len(small)
        _RECENT.run(connection, small)
        if len(small) < len(pieces):
            _CHUNK.run(connection, [piece for piece in pieces if len(piece[4]) > RECENT_MAX_BYTES])

    def revise(self, connection: sqlite3.Connection, conv: int, seq: int, payload: bytes) -> bool:
        """Replace one payload; False if there is no such entry."""
        for table, max_bytes in zip(_TABLES, (RECENT_MAX_BYTES, CHUNK_MAX_BYTES), strict=True):
            row = connection.execute(_HOLDING.format(table=table), (conv, seq)).fetchone()
            if row is None or not row[1] <= seq <= row[2]:
                continue
            id_, first, last, ts, old = row
            payloads = unpack(last + 1 - first, old)
            payloads[seq - first] = payload
            data = b"".join(payloads)
            if len(data) <= max_bytes:
                connection.execute(f"UPDATE {table} SET data = ? WHERE id = ?", (data, id_))
            else:
                connection.execute(f"DELETE FROM {table} WHERE id = ?", (id_,))
                self.insert(connection, [(conv, a, b, ts, d) for a, b, d in split(first, payloads)])
            return True
        return False

    @property
    def merge_is_due(self) -> bool:
        """Whether so much has gathered in `recent` that it should be merged."""
        return self._recent is not None and self._recent >= self._merge_at

    def merge(self, connection: sqlite3.Connection) -> None:
        """Move all of `recent` into `chunk`, as few rows as can be."""
        # Should this fail, then not again with every commit.
        self._merge_at = (self._recent or 0) + MERGE_ROWS
        (newest,) = connection.execute("SELECT coalesce(max(id), 0) FROM chunk").fetchone()
        (gathered,) = connection.execute(_GATHERED_BYTES).fetchone()

        def merged() -> int:
            (count,) = connection.execute(_MERGED_BYTES, (newest,)).fetchone()
            return int(count)

        connection.execute(_MERGE_WHOLE)
        if merged() != gathered:
            connection.execute(_DELETE_MERGED, (newest,))
            connection.execute(_MERGE_RUNS)
        if merged() != gathered:
            # Joining blobs by group_concat is SQLite's practice, not its promise.
            raise sqlite3.OperationalError(f"merging {gathered} bytes gave {merged()}")
        connection.execute("DELETE FROM recent")
        self._recent = 0
        self._merge_at = MERGE_ROWS
