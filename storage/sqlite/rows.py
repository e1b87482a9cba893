"""Multi-row INSERT statements, and lists as parameters.

Python's `executemany` gives the GIL up and takes it back once per row, and each time may wait for
the event loop. A statement of many rows does so once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import orjson

ROWS_PER_STATEMENT = (128, 16, 1)
"""A few fixed sizes, so that every statement stays prepared."""


class Insert:
    """`INSERT` of any number of rows of `columns` columns. `tail` may hold an `ON CONFLICT`."""

    def __init__(self, into: str, columns: int, tail: str = "") -> None:
        row = f"({','.join('?' * columns)})"
        self._statements = [
            (count, f"INSERT INTO {into} VALUES {','.join([row] * count)} {tail}")
            for count in ROWS_PER_STATEMENT
        ]

    def run(self, connection: sqlite3.Connection, rows: Sequence[Iterable[Any]]) -> None:
        """Insert all rows, in order."""
        done = 0
        for count, statement in self._statements:
            while len(rows) - done >= count:
                part = rows[done : done + count]
                connection.execute(statement, list(chain.from_iterable(part)))
                done += count


def int_list(values: Iterable[int]) -> str:
    """A parameter for `IN (SELECT value FROM json_each(?))`."""
    return orjson.dumps(list(values)).decode()


def text_list(values: Iterable[str]) -> str:
    """The same for text. SQLite's JSON ends a string at NUL, so one with NUL matches nothing."""
    return orjson.dumps([value for value in values if "\0" not in value]).decode()
