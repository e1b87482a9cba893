"""Ids that are never given twice: each process takes a block of them by one conditional write.

What is left of a block when its process ends is never used.
"""

from __future__ import annotations

import trio

from storage.cassandra.bridge import Bridge
from storage.cassandra.connection import CONDITIONAL
from storage.cassandra.statements import Statements
from storage.errors import Unavailable

BLOCK_IDS = 1_000
"""Ids that a process takes at a time."""
TRIES_MAX = 50
"""Tries to get a block while others do, too; then it is `Unavailable`."""
ID_MAX = 2**53 - 1
"""The largest id that every client can hold; beyond, there is none."""


class Blocks:
    """The ids of one kind."""

    def __init__(self, kind: str, bridge: Bridge, statements: Statements) -> None:
        self._kind = kind
        self._bridge = bridge
        self._bind = statements.bind
        self._next = self._end = 1
        self._lock = trio.Lock()

    async def take(self, count: int = 1) -> list[int]:
        """Ids that nobody has, ascending. Raises `Unavailable`."""
        async with self._lock:
            taken: list[int] = []
            while len(taken) < count:
                if self._next >= self._end:
                    await self._another(max(BLOCK_IDS, count - len(taken)))
                end = min(self._end, self._next + count - len(taken))
                taken += range(self._next, end)
                self._next = end
            return taken

    def passed(self, used: int) -> None:
        """An id was used that did not come from here: give none up to it."""
        self._next = max(self._next, used + 1)

    async def top(self) -> int:
        """Above all ids that any process may have."""
        rows = await self._bridge.one(self._bind("block", self._kind), CONDITIONAL)
        return int(rows[0]["next"]) if rows else 1

    async def _another(self, size: int) -> None:
        found = await self.top()
        for _ in range(TRIES_MAX):
            start = max(found, self._next)
            end = start + size
            if end > ID_MAX:
                raise Unavailable(f"there are no more ids for a {self._kind}", applied=False)
            if found == 1:
                statement = self._bind("first_block", self._kind, end)
            else:
                statement = self._bind("next_block", end, self._kind, found)
            # In doubt it fails, and a block is lost at worst.
            (answer,) = await self._bridge.one(statement, CONDITIONAL)
            if answer["[applied]"]:
                self._next, self._end = start, end
                return
            found = answer["next"]
        raise Unavailable(f"too many want ids for a {self._kind}", applied=False)
