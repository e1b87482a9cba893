"""Mark dirty, flush once: one `send()` per connection that something was written to.

Whoever writes to connections marks them dirty; the flush sends what each has gathered, straight on
its non-blocking socket, and yields every few hundred sends. An image for many is not even written
to each: it waits as one broadcast, and goes out in the same pass, touching each connection once.
Full sockets are the outbox's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from actors.parking import Parking

if TYPE_CHECKING:
    from actors.cluster.peer import Peer
    from actors.images import Image
    from actors.outbox import Outbox

SENDS_BEFORE_YIELD = 512


class Flusher:
    """The list of dirty outboxes. `dirty` is public: the fan-out loop appends to it directly."""

    __slots__ = ("_broadcasts", "_parking", "dirty")

    def __init__(self) -> None:
        self.dirty: list[Outbox | Peer] = []
        self._broadcasts: list[tuple[list[Outbox], Image]] = []
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

    def broadcast(self, outboxes: list[Outbox], image: Image) -> None:
        """Write an image to many, in this turn's flush."""
        self._broadcasts.append((outboxes, image))

    def settle(self) -> None:
        """Write the broadcasts so far to each now: what is written next must not overtake them."""
        broadcasts, self._broadcasts = self._broadcasts, []
        for outboxes, image in broadcasts:
            for outbox in outboxes:
                outbox.push_live(image)

    async def flush_turn(self) -> None:
        """Send all that a turn has written: answers first, so that who asked can go on.

        Only the turn calls this, so that the broadcasts of one turn are through before the next.
        """
        await self.flush()
        broadcasts, self._broadcasts = self._broadcasts, []
        sends = 0
        for outboxes, image in broadcasts:
            for start in range(0, len(outboxes), SENDS_BEFORE_YIELD):
                part = outboxes[start : start + SENDS_BEFORE_YIELD]
                self._send_to(part, image)
                sends += len(part)
                if sends >= SENDS_BEFORE_YIELD:
                    sends = 0
                    await trio.lowlevel.checkpoint()
        await self.flush()

    def _send_to(self, outboxes: list[Outbox], image: Image) -> None:
        """The loop that fan-out is made of: nothing but the send for whoever is clean."""
        data = image.data
        size = len(data)
        for outbox in outboxes:
            if outbox.pending is None and outbox.behind is None:
                try:
                    sent = outbox.send(data)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    outbox.broken()
                    continue
                if sent != size:
                    outbox.stall(image, sent)
            else:
                outbox.push_live(image)

    async def run(self) -> None:
        """For what is written between turns: woken by `kick`."""
        while True:
            await self._parking.park()
            await self.flush()
