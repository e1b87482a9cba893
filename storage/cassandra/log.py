"""How a log lies in its table, and which of its rows count. No rules of the protocol.

**What a row is.** Its key is (conv, bucket), seq, version. Two rows of one seq are there only after
a writer was replaced, or after a commit in doubt: the one with the higher version counts.

**The checkpoint** in `heads` says: up to its seq all is settled. A row beyond it counts if its
version is not below the checkpoint's, all before it count, and its version is not below theirs.
A late row of a commit that was given up is thereby void: whoever took the log up after it has moved
the checkpoint to a higher version, or written a higher version in its place.

**A commit** counts as a whole: only its last row has a `ts`, and rows behind the last one that has
it do not count yet. So nobody who looks while it is being written takes a piece for all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from storage.cassandra.bridge import Bridge
from storage.cassandra.connection import READ
from storage.cassandra.statements import Statements
from storage.cassandra.versions import epoch_of
from storage.names import slot_of

BUCKET_ENTRIES = 5_000
"""Entries in a partition: at 200 to 2,000 bytes each 1 to 10 MB, small for Cassandra (it slows down
beyond 100 MB), while a quiet conversation is in one. It can never be changed."""
COVERED_MAX = 100_000
"""Conversations whose checkpoint is remembered; one more, and all are forgotten and read again."""
SHARDS = 64
"""Partitions of `heads`: heads of a thousand conversations are 64 queries. Never changed."""


class HeadRow(Struct, frozen=True):
    """A conversation's row in `heads`; all 0 where there is none."""

    seq: int = 0
    ts: int = 0
    version: int = 0
    open: bool = False
    fence: int = 0
    """The highest epoch under which the log was taken up, if that was after its first entry."""
    exists: bool = False

    @property
    def epoch(self) -> int:
        """The highest under which the log is known to have been taken up."""
        return max(self.fence, epoch_of(self.version))


class LogRow(Struct, gc=False):
    """A row beyond the checkpoint, without its payload."""

    seq: int
    version: int
    ts: int | None
    """Of the last entry of a commit; others have none."""
    changes: bytes | None


class Walk(Struct):
    """A checkpoint, the rows beyond it that count, and thereby the head."""

    row: HeadRow
    run: list[LogRow]

    @property
    def seq(self) -> int:
        return self.run[-1].seq if self.run else self.row.seq

    @property
    def ts(self) -> int:
        return next((r.ts for r in reversed(self.run) if r.ts is not None), self.row.ts)

    @property
    def version(self) -> int:
        return max(self.row.version, self.run[-1].version if self.run else 0)


def place(conv: str) -> tuple[int, int, str]:
    """The key of a conversation in `heads`."""
    slot = slot_of(conv)
    return slot % SHARDS, slot, conv


def bucket_of(seq: int) -> int:
    return seq // BUCKET_ENTRIES


class Log:
    """Reads of heads and of what lies beyond their checkpoints."""

    def __init__(self, bridge: Bridge, statements: Statements) -> None:
        self._bridge = bridge
        self._bind = statements.bind
        self._covered: dict[str, int] = {}

    def covered(self, conv: str) -> int:
        """A checkpoint that was seen, and they only move forward: up to it all rows count."""
        return self._covered.get(conv, 0)

    def cover(self, conv: str, checkpoint: int) -> None:
        """Remember a checkpoint that was read."""
        if checkpoint > self._covered.get(conv, 0):
            if len(self._covered) >= COVERED_MAX:
                self._covered.clear()
            self._covered[conv] = checkpoint

    async def head_rows(self, convs: Sequence[str]) -> list[HeadRow]:
        """The rows in `heads`, in the order asked for."""
        asked = [self.asking_head(conv) for conv in convs]
        found = [self.head_row(rows) for rows in await self._bridge.all(asked, READ)]
        for conv, row in zip(convs, found, strict=True):
            self.cover(conv, row.seq)
        return found

    def asking_head(self, conv: str) -> Any:
        """The statement for a row in `heads`; `head_row` reads its answer."""
        return self._bind("head", *place(conv))

    @staticmethod
    def head_row(rows: Sequence[tuple[Any, ...]]) -> HeadRow:
        if not rows:
            return HeadRow()
        seq, ts, version, is_open, fence = rows[0]
        return HeadRow(seq or 0, ts or 0, version or 0, bool(is_open), fence or 0, exists=True)

    async def walks(self, convs: Sequence[str]) -> list[Walk]:
        """Up to where each log goes now, in the order asked for."""
        return await self.beyond(convs, await self.head_rows(convs))

    async def beyond(self, convs: Sequence[str], rows: Sequence[HeadRow]) -> list[Walk]:
        """The same from known checkpoints."""
        walks = [Walk(row, []) for row in rows]
        left = list(zip(convs, walks, strict=True))
        while left:
            asked = [
                self._bind("beyond", conv, bucket_of(walk.seq + 1), walk.seq) for conv, walk in left
            ]
            answers = await self._bridge.all(asked, READ)
            more = []
            for (conv, walk), answer in zip(left, answers, strict=True):
                before = walk.seq
                found = winning((LogRow(*row) for *row, _ in answer), before, walk.version)
                walk.run += found
                if found and bucket_of(walk.seq + 1) > bucket_of(before + 1):
                    more.append((conv, walk))
            left = more
        for walk in walks:
            while walk.run and walk.run[-1].ts is None:
                walk.run.pop()
        return walks


def winning(rows: Iterable[LogRow], seq: int, version: int) -> list[LogRow]:
    """Those that count among rows beyond `seq`, where what counts has `version` or a higher one."""
    highest: dict[int, LogRow] = {}
    for row in rows:
        known = highest.get(row.seq)
        if row.version >= version and (known is None or row.version > known.version):
            highest[row.seq] = row
    run: list[LogRow] = []
    while (row_ := highest.get(seq + 1)) is not None and row_.version >= version:
        run.append(row_)
        seq, version = seq + 1, row_.version
    return run
