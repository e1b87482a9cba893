"""The way of a call from a trio task to a worker thread and back, as short as it can be.

A task leaves its work in a thread's queue and sleeps; the thread hands finished calls back to the
loop, many at once. A cancelled task is only forgotten: what it asked for may still happen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import trio

from storage.errors import Unavailable

T = TypeVar("T")


class Call(Generic[T]):
    """One piece of work for a thread; `work` gets the thread's connection.

    `wake` is called in the loop when `result` or `error` is set, and is None once nobody waits.
    """

    __slots__ = ("error", "result", "wake", "work")

    def __init__(self, work: Callable[..., T], wake: Callable[[], None] | None = None) -> None:
        self.work = work
        self.wake = wake
        self.result: T | None = None
        self.error: BaseException | None = None


class Calls:
    """A bounded queue of calls, from one event loop to the threads that take them.

    When `limit` calls wait, another is refused with `Unavailable`, since nothing would be gained by
    letting more wait: whoever asked may try again later.
    """

    def __init__(self, name: str, limit: int) -> None:
        self.queue: SimpleQueue[Call[Any] | None] = SimpleQueue()
        self._name = name
        self._limit = limit
        self._closed = False
        self._token = trio.lowlevel.current_trio_token()

    async def run(self, work: Callable[..., T]) -> T:
        """Have a thread do `work(connection)`; its result, or what it raised."""
        await trio.lowlevel.checkpoint_if_cancelled()
        call = Call(work, partial(trio.lowlevel.reschedule, trio.lowlevel.current_task()))
        self.submit(call)

        def forget(_: object) -> trio.lowlevel.Abort:
            call.wake = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(forget)
        if call.error is not None:
            raise call.error
        return call.result  # type: ignore[return-value]

    def submit(self, call: Call[Any]) -> None:
        """Leave a call for the threads. Raises `Unavailable` when closed or full."""
        if self._closed:
            raise Unavailable(f"the {self._name} is closed", applied=False)
        if self.queue.qsize() >= self._limit:
            raise Unavailable(f"the {self._name} has {self._limit} calls waiting", applied=False)
        self.queue.put(call)

    def close(self, threads: int) -> None:
        """Accept no more; each of the threads ends when all that waits is done."""
        if not self._closed:
            self._closed = True
            for _ in range(threads):
                self.queue.put(None)

    def hand_back(self, calls: Sequence[Call[Any]]) -> None:
        """From a thread: wake the tasks of these finished calls."""
        self._token.run_sync_soon(_wake, calls)


def _wake(calls: Sequence[Call[Any]]) -> None:
    for call in calls:
        if call.wake is not None:
            call.wake()
