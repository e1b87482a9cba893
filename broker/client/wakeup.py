"""A signal that can be given again and again: who waits goes on, who comes later waits anew."""

from __future__ import annotations

import trio


class Wakeup:
    """Wakes whoever waits now. Waiters look at the state themselves, in a loop."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        """Wake all who wait."""
        if self._event.statistics().tasks_waiting:
            self._event.set()
            self._event = trio.Event()

    async def wait(self) -> None:
        """Sleep until the next `set`."""
        await self._event.wait()
