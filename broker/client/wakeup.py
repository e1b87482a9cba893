"""A signal that can be given again and again: who waits goes on, who comes later waits anew."""

from __future__ import annotations

import trio


class Wakeup:
    """Wakes whoever waits now. Waiters look at the state themselves, in a loop."""

    def __init__(self) -> None:
        self._lot = trio.lowlevel.ParkingLot()

    def set(self) -> None:
        """Wake all who wait."""
        if self._lot:
            self._lot.unpark_all()

    async def wait(self) -> None:
        """Sleep until the next `set`."""
        await self._lot.park()
