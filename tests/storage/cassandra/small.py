"""A Cassandra in memory that knows the statements of logs, and what it keeps of a write that fails.

What travels together becomes durable together or not at all. Of a round of writes in which
something failed, any of its batches may be there, and any other may still land much later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import trio
from cassandra.query import UNSET_VALUE
from msgspec import Struct

from storage.cassandra.connection import WRITE
from storage.cassandra.conversations import Conversations
from storage.cassandra.known import Knowledge
from storage.cassandra.packing import Part
from storage.cassandra.pages import Pages
from storage.cassandra.taking import Taking
from storage.cassandra.versions import Versions
from storage.cassandra.writing import Writing
from storage.errors import Unavailable

Row = dict[str, tuple[Any, int]]
Key = tuple[Any, ...]


class Bound(Struct):
    """A statement with its values."""

    name: str
    values: Key


class Together(Struct):
    """A batch."""

    statements: list[Bound]


class Failure(Struct):
    """Of the write round of this number, counted from 0, only these batches land."""

    round: int
    landing: Collection[int] = ()
    meanwhile: Callable[[], Awaitable[None]] | None = None
    """Then it does not fail: this happens before it, and all of it lands."""


@contextmanager
def in_parts(rows: int, bucket: int) -> Iterator[None]:
    """Logs are in parts of so many rows, and in buckets of so many entries."""

    def batches(parts: Sequence[Part], _: Any) -> list[Together]:
        return [Together(part.statements) for part in parts]

    with (
        patch("storage.cassandra.writing.packed", batches),
        patch("storage.cassandra.taking.packed", batches),
        patch("storage.cassandra.writing.PART_MAX_ROWS", rows),
        patch("storage.cassandra.log.BUCKET_ENTRIES", bucket),
    ):
        yield


class Tables:
    """What is durable, and what may yet become so."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[Key, Row]] = {}
        self.late: list[Together | Bound] = []

    def land_late(self, numbers: Collection[int]) -> None:
        """Of what was lost, these land now, and the others never."""
        for number in numbers:
            if number < len(self.late):
                self.write(self.late[number])
        self.late.clear()

    def write(self, sent: Together | Bound) -> None:
        for each in sent.statements if isinstance(sent, Together) else [sent]:
            getattr(self, f"_{each.name}")(*each.values)

    def read(self, asked: Bound) -> list[Key]:
        found: list[Key] = getattr(self, f"_{asked.name}")(*asked.values)
        return found

    def _put(self, table: str, key: Key, at: int, **values: Any) -> None:
        row = self._tables.setdefault(table, {}).setdefault(key, {})
        for name, value in values.items():
            if value is not UNSET_VALUE and (name not in row or at >= row[name][1]):
                row[name] = value, at

    def _get(self, table: str, *names: str, under: Key = ()) -> list[Key]:
        """Rows whose key begins so: the rest of the key, and these values."""
        return [
            (*key[len(under) :], *(row.get(name, (None,))[0] for name in names))
            for key, row in sorted(self._tables.get(table, {}).items())
            if key[: len(under)] == under
        ]

    # Logs

    def _add_row(
        self,
        conv: str,
        bucket: int,
        seq: int,
        version: int,
        payload: bytes,
        ts: Any,
        changes: Any,
        at: int,
    ) -> None:
        key = (conv, bucket, seq, version)
        self._put("timeline", key, at, payload=payload, ts=ts, changes=changes)

    def _revise(self, at: int, payload: bytes, *key: Any) -> None:
        self._put("timeline", key, at, payload=payload)

    def _page(self, conv: str, bucket: int, low: int, high: int) -> list[Key]:
        rows = self._get("timeline", "payload", under=(conv, bucket))
        return [row for row in rows if low <= row[0] <= high]

    def _versions(self, conv: str, bucket: int, seq: int) -> list[Key]:
        return [row[:2] for row in self._page(conv, bucket, seq, seq)]

    def _beyond(self, conv: str, bucket: int, seq: int) -> list[Key]:
        rows = self._get("timeline", "ts", "changes", "payload", under=(conv, bucket))
        return [row for row in rows if row[0] > seq]

    # Heads

    def _head(self, *key: Any) -> list[Key]:
        return self._get("heads", "seq", "ts", "version", "open", "fence", under=key)

    def _put_head(self, at: int, seq: int, ts: int, version: int, open_: bool, *key: Any) -> None:
        self._put("heads", key, at, seq=seq, ts=ts, version=version, open=open_)

    def _put_fence(self, at: int, fence: int, *key: Any) -> None:
        self._put("heads", key, at, fence=fence)

    # What follows

    def _put_member(self, at: int, role: str, since: int, gone: bool, conv: str, user: int) -> None:
        self._put("members", (conv, user), at, role=role, since=since, gone=gone)

    def _put_membership(self, *_: Any) -> None:
        """Nobody looks."""

    def _all_members(self, conv: str) -> list[Key]:
        return self._get("members", "role", "since", "gone", under=(conv,))

    def _all_marks(self, _: str) -> list[Key]:
        return []

    def _groups(self, _: Sequence[int]) -> list[Key]:
        return []


class Writer:
    """The parts of a store that have to do with logs, as one process has them."""

    def __init__(self, tables: Tables, *, shared: bool) -> None:
        known, versions = Knowledge(), Versions()
        known.shared = shared
        self._tables = tables
        self._round = -1
        self.failure: Failure | None = None
        bridge: Any = self
        statements: Any = self
        self.taking = Taking(bridge, statements, None, known, versions)
        self.writing = Writing(bridge, statements, None, known, versions, self.taking)
        self.pages = Pages(bridge, statements, self.taking)
        self.convs = Conversations(bridge, statements, known, versions, self.taking, self.pages)

    def fail(self, failure: Failure | None) -> None:
        """From now on."""
        self.failure, self._round = failure, -1

    def bind(self, name: str, *values: Any) -> Bound:
        return Bound(name, values)

    async def one(self, statement: Bound, profile: str) -> list[Key]:
        return (await self.all([statement], profile))[0]

    async def all(self, statements: Sequence[Any], profile: str) -> list[Any]:
        await trio.lowlevel.checkpoint()
        if profile != WRITE:
            return [self._tables.read(each) for each in statements]
        self._round += 1
        failure = self.failure
        if failure is not None and failure.round == self._round:
            if failure.meanwhile is None:
                self._lose(statements, failure.landing)
            await failure.meanwhile()
        for each in statements:
            self._tables.write(each)
        return [[] for _ in statements]

    def _lose(self, statements: Sequence[Any], landing: Collection[int]) -> None:
        for number, each in enumerate(statements):
            if number in landing:
                self._tables.write(each)
            else:
                self._tables.late.append(each)
        raise Unavailable("lost", applied=None)
