"""Reading logs: pages of entries and heads, through the index of chunks. Never writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from storage.records import Head
from storage.sqlite.chunks import unpack
from storage.sqlite.rows import text_list

_NO_END = 2**62

_UPWARDS = """
    SELECT first, last, data FROM chunk
    WHERE conv = (SELECT id FROM conversation WHERE name = ?) AND last > ? ORDER BY last
"""
_DOWNWARDS = """
    SELECT first, last, data FROM chunk
    WHERE conv = (SELECT id FROM conversation WHERE name = ?1)
      AND last <= coalesce((
          SELECT min(last) FROM chunk
          WHERE conv = (SELECT id FROM conversation WHERE name = ?1) AND last >= ?2 - 1
      ), ?2)
    ORDER BY last DESC
"""
_HEADS = """
    SELECT j.value, k.last, k.ts
    FROM json_each(?) AS j
    JOIN conversation AS c ON c.name = j.value
    JOIN chunk AS k
      ON k.id = (SELECT id FROM chunk WHERE conv = c.id ORDER BY last DESC LIMIT 1)
"""


def read(
    connection: sqlite3.Connection, conv: str, after: int | None, before: int | None, limit: int
) -> list[bytes]:
    """Payloads of a window, as `Timeline.read` says; touches only the chunks that hold them."""
    if limit <= 0:
        return []
    end = _NO_END if before is None else min(before, _NO_END)
    if after is None:
        return _newest(connection, conv, end, limit)
    return _oldest(connection, conv, max(0, min(after, _NO_END)), end, limit)


def heads(connection: sqlite3.Connection, convs: Sequence[str]) -> dict[str, Head]:
    """The head of each conversation that has entries."""
    rows = connection.execute(_HEADS, (text_list(convs),))
    return {name: Head(seq=seq, ts=ts) for name, seq, ts in rows}


def _oldest(
    connection: sqlite3.Connection, conv: str, after: int, end: int, limit: int
) -> list[bytes]:
    found: list[bytes] = []
    rows = connection.execute(_UPWARDS, (conv, after))
    for first, last, data in rows:
        if first >= end:
            break
        payloads = unpack(data)
        found += payloads[max(0, after + 1 - first) : min(last + 1, end) - first]
        if len(found) >= limit:
            break
    rows.close()
    return found[:limit]


def _newest(connection: sqlite3.Connection, conv: str, end: int, limit: int) -> list[bytes]:
    parts: list[list[bytes]] = []
    count = 0
    rows = connection.execute(_DOWNWARDS, (conv, end))
    for first, last, data in rows:
        payloads = unpack(data)[: max(0, min(last + 1, end) - first)]
        parts.append(payloads)
        count += len(payloads)
        if count >= limit:
            break
    rows.close()
    found = [payload for part in reversed(parts) for payload in part]
    return found[-limit:]
