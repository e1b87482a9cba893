"""The way of a request from a trio task to the driver and back.

The driver answers in threads of its own. Its callbacks append to a queue and ask trio to drain it,
so trio wakes once for all answers that have gathered. A cancelled task is only forgotten: what it
asked for may still happen, and its permit comes back with the answer, so that what is under way is
bounded whatever callers do.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Any

import trio
from cassandra.cluster import ResponseFuture, Session

from storage.cassandra.failures import DRIVER_ERRORS, translated
from storage.errors import Unavailable

IN_FLIGHT_MAX_REQUESTS = 512
"""Requests under way; the next one waits until an answer comes."""
WAITING_MAX_TASKS = 10_000
"""Tasks that wait for room; one more is refused with `Unavailable`, as nothing was gained by it."""
CLOSE_TIMEOUT_S = 2.0
"""For the answers that are still out when the store is closed; then they are given up."""

Rows = Any
"""What the driver gives for the rows of one answer: a list, of tuples or dicts by the profile."""


class _Gathered:
    """The answers to the requests of one call."""

    __slots__ = ("errors", "left", "results", "task")

    def __init__(self, count: int) -> None:
        self.left = count
        self.results: list[Rows] = [None] * count
        self.errors: list[BaseException] = []
        self.task: trio.lowlevel.Task | None = None


class _Request:
    __slots__ = ("answered", "future", "gathered", "index")

    def __init__(self, gathered: _Gathered, index: int) -> None:
        self.gathered = gathered
        self.index = index
        self.answered = False
        self.future: ResponseFuture | None = None


class Bridge:
    """Requests of one event loop through one session of the driver. Made in the loop."""

    def __init__(self, session: Session, *, in_flight: int = IN_FLIGHT_MAX_REQUESTS) -> None:
        self._session = session
        self._in_flight = in_flight
        self._permits = trio.Semaphore(in_flight, max_value=in_flight)
        self._token = trio.lowlevel.current_trio_token()
        self._answers: deque[tuple[_Request, Rows, BaseException | None]] = deque()
        self._closed = False

    @property
    def under_way(self) -> int:
        """Requests whose answer has not come, whether anybody waits for it or not."""
        return self._in_flight - self._permits.value

    async def one(self, statement: Any, profile: str) -> Rows:
        """The rows of one statement. Raises `Unavailable`."""
        return (await self.all([statement], profile))[0]

    async def all(self, statements: Sequence[Any], profile: str) -> list[Rows]:
        """The rows of each statement, all sent at once, in the order asked for.

        Ends when all have been answered. Raises `Unavailable` if one failed; its `applied` is False
        if nothing of any was written.
        """
        gathered = _Gathered(len(statements))
        for index, statement in enumerate(statements):
            try:
                await self._permit()
            except Unavailable as error:
                raise Unavailable(str(error), applied=None if index else False) from error
            self._send(_Request(gathered, index), statement, profile)
        if gathered.left:
            gathered.task = trio.lowlevel.current_task()

            def forget(_: object) -> trio.lowlevel.Abort:
                gathered.task = None
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(forget)
        elif not statements:
            await trio.lowlevel.checkpoint()
        if gathered.errors:
            raise _joined(gathered.errors, len(statements))
        return gathered.results

    async def aclose(self) -> None:
        """Accept no more, and wait a while for the answers that are out."""
        self._closed = True
        with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            for _ in range(self._in_flight):
                await self._permits.acquire()

    async def _permit(self) -> None:
        if self._closed:
            raise Unavailable("Cassandra: the store is closed", applied=False)
        try:
            self._permits.acquire_nowait()
        except trio.WouldBlock:
            if self._permits.statistics().tasks_waiting >= WAITING_MAX_TASKS:
                raise Unavailable(
                    f"Cassandra: {WAITING_MAX_TASKS} requests are waiting", applied=False
                ) from None
            await self._permits.acquire()

    def _send(self, request: _Request, statement: Any, profile: str) -> None:
        try:
            future = self._session.execute_async(statement, execution_profile=profile)
        except BaseException as error:
            if not isinstance(error, DRIVER_ERRORS):
                self._permits.release()
                raise
            self._failed(error, request)
            return
        request.future = future
        future.add_callbacks(
            self._came, self._failed, callback_args=(request,), errback_args=(request,)
        )

    # In the driver's threads, which hand over their answer and then our argument.

    def _came(self, rows: Rows, request: _Request) -> None:
        self._answer(request, rows, None)

    def _failed(self, error: BaseException, request: _Request) -> None:
        self._answer(request, None, error)

    def _answer(self, request: _Request, rows: Rows, error: BaseException | None) -> None:
        # Where a callback raises, the driver calls the other one too.
        if request.answered:
            return
        request.answered = True
        self._answers.append((request, rows, error))
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._drain, idempotent=True)

    # In the loop again.

    def _drain(self) -> None:
        answers = self._answers
        while answers:
            request, rows, error = answers.popleft()
            self._permits.release()
            gathered = request.gathered
            gathered.results[request.index] = rows
            future, request.future = request.future, None
            if error is not None:
                tried = len(future.attempted_hosts) if future else 0
                gathered.errors.append(translated(error, tried=tried))
            if future is not None:
                # Undocumented, and tested: it is a cycle, so that the some fifty objects of each
                # request would wait for the collector, which then stops everything for 0.1 s.
                future._timer = None
            gathered.left -= 1
            if gathered.left == 0 and gathered.task is not None:
                trio.lowlevel.reschedule(gathered.task)


def _joined(errors: Sequence[BaseException], asked: int) -> BaseException:
    """One error for all; nothing was written only if that is so of each request."""
    for error in errors:
        if not isinstance(error, Unavailable):
            return error
    first = errors[0]
    certain = len(errors) == asked and all(
        isinstance(error, Unavailable) and error.applied is False for error in errors
    )
    joined = Unavailable(str(first), applied=False if certain else None)
    joined.__cause__ = first.__cause__
    return joined
