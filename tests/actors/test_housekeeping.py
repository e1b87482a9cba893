"""Expired sessions are forgotten, hour by hour, also after an hour in which the store failed."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from actors.housekeeping import PERIOD_S, keep_house
from actors.node import Node
from storage.errors import Unavailable
from storage.memory import MemoryStore


class PurgedStore(MemoryStore):
    """Notes when it was purged; fails the second time."""

    def __init__(self) -> None:
        super().__init__()
        self.purged: list[float] = []

    async def purge(self, *, now: int) -> None:
        self.purged.append(trio.current_time())
        if len(self.purged) == 2:
            raise Unavailable("not now")
        await super().purge(now=now)


async def test_house_is_kept_every_hour(autojump_clock: MockClock) -> None:
    store = PurgedStore()
    with trio.move_on_after(2.5 * PERIOD_S):
        await keep_house(Node(store))
    assert store.purged == [0, PERIOD_S, 2 * PERIOD_S]
