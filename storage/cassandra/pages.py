"""`Timeline.read` and the tails of `load`: pages of a log by seq, never by the driver's paging.

Two reads of the same page at the same time share one query.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import trio

from storage.cassandra.bridge import Bridge
from storage.cassandra.connection import READ
from storage.cassandra.log import HeadRow, Log, bucket_of
from storage.cassandra.statements import Statements
from storage.cassandra.taking import Taking
from storage.errors import Unavailable

BUCKETS_AT_ONCE = 2
"""Buckets that a page is looked for in before it is known where the log ends."""

K = TypeVar("K")
V = TypeVar("V")


class Shared(Generic[K, V]):
    """Calls that are under way, by what they are about: who asks for the same joins them."""

    def __init__(self) -> None:
        self._under_way: dict[K, tuple[trio.Event, list[V | Unavailable]]] = {}

    async def call(self, key: K, fetch: Callable[[], Awaitable[V]]) -> V:
        """What `fetch` returns or raises, for all who ask while it is under way."""
        while (found := self._under_way.get(key)) is not None:
            event, answer = found
            await event.wait()
            if answer:
                return _opened(answer[0])
            # Who asked was cancelled.
        event, answer = trio.Event(), []
        self._under_way[key] = event, answer
        try:
            answer.append(await fetch())
        except Unavailable as error:
            answer.append(error)
        finally:
            del self._under_way[key]
            event.set()
        return _opened(answer[0])


def _opened(answer: V | Unavailable) -> V:
    if isinstance(answer, Unavailable):
        raise Unavailable(str(answer), applied=answer.applied) from answer
    return answer


class Pages:
    """Reads pages."""

    def __init__(self, bridge: Bridge, statements: Statements, taking: Taking) -> None:
        self._bridge = bridge
        self._bind = statements.bind
        self._taking = taking
        self._log: Log = taking.log
        self._shared: Shared[tuple[str, int, int], dict[int, bytes]] = Shared()

    async def read(
        self, conv: str, *, after: int | None = None, before: int | None = None, limit: int
    ) -> list[bytes]:
        """See `Timeline.read`."""
        low = 1 if after is None else max(1, after + 1)
        high = None if before is None else before - 1
        if limit <= 0 or (high is not None and high < low):
            await trio.lowlevel.checkpoint()
            return []
        if after is None:
            return await self._newest(conv, high, limit)
        end = low + limit - 1
        return await self._between(conv, low, end if high is None else min(end, high))

    async def _newest(self, conv: str, high: int | None, limit: int) -> list[bytes]:
        if high is not None:
            low = max(1, high - limit + 1)
            if bucket_of(high) - bucket_of(low) < BUCKETS_AT_ONCE:
                page = await self._page(conv, low, high)
                if high in page:
                    return list(page.values())
        head = (await self._taking.look([conv]))[0].seq
        high = head if high is None else min(high, head)
        return await self._between(conv, max(1, high - limit + 1), high)

    async def _between(self, conv: str, low: int, high: int) -> list[bytes]:
        if bucket_of(high) - bucket_of(low) >= BUCKETS_AT_ONCE:
            high = min(high, (await self._taking.look([conv]))[0].seq)
        if high < low:
            return []
        return list((await self._page(conv, low, high)).values())

    async def _page(self, conv: str, low: int, high: int) -> dict[int, bytes]:
        return await self._shared.call((conv, low, high), lambda: self._fetch(conv, low, high))

    async def _fetch(self, conv: str, low: int, high: int) -> dict[int, bytes]:
        page = self.asking(conv, low, high)
        covered = self._log.covered(conv)
        if high <= covered:
            return payloads(await self._bridge.all(page, READ), low, HeadRow(covered))
        rows, *answers = await self._bridge.all([self._log.asking_head(conv), *page], READ)
        row = self._log.head_row(rows)
        self._log.cover(conv, row.seq)
        return payloads(answers, low, row)

    def asking(self, conv: str, low: int, high: int) -> list[Any]:
        """The statements for the rows of a page, a bucket each; none for an empty one."""
        return [
            self._bind("page", conv, bucket, low, high)
            for bucket in range(bucket_of(low), bucket_of(high) + 1)
            if low <= high
        ]


def payloads(
    answers: Iterable[Sequence[tuple[int, int, bytes]]], low: int, row: HeadRow
) -> dict[int, bytes]:
    """The payloads that count, ascending from `low` on, up to the first hole or void one."""
    highest: dict[int, tuple[int, bytes]] = {}
    for rows in answers:
        for seq, version, payload in rows:
            known = highest.get(seq)
            counts = seq <= row.seq or version >= row.version
            if counts and (known is None or version > known[0]):
                highest[seq] = version, payload
    found = {}
    least = 0
    while (entry := highest.get(low)) is not None and entry[0] >= least:
        found[low] = entry[1]
        if low > row.seq:
            least = entry[0]
        low += 1
    return found
