"""Reading logs: pages of entries and heads, through the index of chunks. Never writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from storage.records import Head
from storage.sqlite.chunks import unpack
from storage.sqlite.rows import text_list

_NO_END = 2**62

_CONV = "(SELECT id FROM conversation WHERE name = ?1)"

# Each of the two tables is in order by its index; SQLite merges them as it goes, without a sort.
_UPWARDS = f"""
    SELECT first, last, data FROM chunk WHERE conv = {_CONV} AND last > ?2
    UNION ALL
    SELECT first, last, data FROM recent WHERE conv = {_CONV} AND last > ?2
    ORDER BY last
"""
_LAST_NEEDED = f"""(
    SELECT min(coalesce((SELECT min(last) FROM chunk WHERE conv = {_CONV} AND last >= ?2), ?3),
               coalesce((SELECT min(last) FROM recent WHERE conv = {_CONV} AND last >= ?2), ?3))
)"""
_DOWNWARDS = f"""
    SELECT first, last, data FROM chunk WHERE conv = {_CONV} AND last <= {_LAST_NEEDED}
    UNION ALL
    SELECT first, last, data FROM recent WHERE conv = {_CONV} AND last <= {_LAST_NEEDED}
    ORDER BY last DESC
"""
_NEWEST = "ORDER BY last DESC LIMIT 1"
_HEADS = f"""
    SELECT j.value, max(coalesce(r.last, 0), coalesce(k.last, 0)),
           CASE WHEN coalesce(r.last, 0) > coalesce(k.last, 0) THEN r.ts ELSE k.ts END
    FROM json_each(?) AS j
    JOIN conversation AS c ON c.name = j.value
    LEFT JOIN recent AS r ON r.id = (SELECT id FROM recent WHERE conv = c.id {_NEWEST})
    LEFT JOIN chunk AS k ON k.id = (SELECT id FROM chunk WHERE conv = c.id {_NEWEST})
    WHERE r.last OR k.last
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
        payloads = unpack(last + 1 - first, data)
        found += payloads[max(0, after + 1 - first) : min(last + 1, end) - first]
        if len(found) >= limit:
            break
    rows.close()
    return found[:limit]


def _newest(connection: sqlite3.Connection, conv: str, end: int, limit: int) -> list[bytes]:
    parts: list[list[bytes]] = []
    count = 0
    rows = connection.execute(_DOWNWARDS, (conv, end - 1, _NO_END))
    for first, last, data in rows:
        payloads = unpack(last + 1 - first, data)[: max(0, min(last + 1, end) - first)]
        parts.append(payloads)
        count += len(payloads)
        if count >= limit:
            break
    rows.close()
    found = [payload for part in reversed(parts) for payload in part]
    return found[-limit:]
