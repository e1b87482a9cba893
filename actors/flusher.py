"""Mark dirty, flush once: one `send()` per connection that something was written to.

Whoever writes to connections marks them dirty; the flush sends what each has gathered, straight on
its non-blocking socket, and yields every few hundred sends. Full sockets are the outbox's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from actors.parking import Parking

if TYPE_CHECKING:
    from actors.outbox import Outbox

SENDS_BEFORE_YIELD = 256


class Flusher:
    """The list of dirty outboxes. `dirty` is public: the fan-out loop appends to it directly."""

    __slots__ = ("_parking", "dirty")

    def __init__(self) -> None:
        self.dirty: list[Outbox] = []
        self._parking = Parking()

    def kick(self) -> None:
        """Have the flush run soon; for writers outside a turn and outside a reader's pass."""
        self._parking.unpark()

    def flush_now(self) -> None:
        """Send at most `SENDS_BEFORE_YIELD` connections' bytes at once, and the rest soon."""
        dirty = self.dirty
        if len(dirty) > SENDS_BEFORE_YIELD:
            self.kick()
            dirty, self.dirty = dirty[:SENDS_BEFORE_YIELD], dirty[SENDS_BEFORE_YIELD:]
        else:
            self.dirty = []
        for outbox in dirty:
            outbox.flush()

    async def flush(self) -> None:
        """Send everything that is dirty now or becomes so meanwhile."""
        while self.dirty:
            dirty, self.dirty = self.dirty, []
            for start in range(0, len(dirty), SENDS_BEFORE_YIELD):
                for outbox in dirty[start : start + SENDS_BEFORE_YIELD]:
                    outbox.flush()
                if start + SENDS_BEFORE_YIELD < len(dirty):
                    await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        """For what is written between turns: woken by `kick`."""
        while True:
            await self._parking.park()
            await self.flush()
