"""A place for one task to sleep until it is woken; a wake that comes first is not lost.

Cheaper than an `Event` per sleep: bare `wait_task_rescheduled`, without a scope.
"""

from __future__ import annotations

import trio


class Parking:
    __slots__ = ("_task", "_woken")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._woken = False

    def unpark(self) -> None:
        """Wake the sleeper, or let its next `park` return at once. Calling it often is free."""
        self._woken = True
        task = self._task
        if task is not None:
            self._task = None
            trio.lowlevel.reschedule(task)

    async def park(self) -> None:
        """Sleep until `unpark`; at once (after a checkpoint) if it was called since the last."""
        if self._woken:
            self._woken = False
            await trio.lowlevel.checkpoint()
            return
        self._task = trio.lowlevel.current_task()
        try:
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        finally:
            self._task = None
            self._woken = False

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None  # cancelled: from here on nobody else may reschedule it
        return trio.lowlevel.Abort.SUCCEEDED
