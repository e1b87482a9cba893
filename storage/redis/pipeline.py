"""The one thread that sends commands. What gathers while answers are out goes as the next pipeline.

The answers of a pipeline wake the loop once. A cancelled call is only forgotten: it may have been
done. While Redis is away, calls are refused at once and the thread looks for it, ever more slowly.
Nothing is sent twice. Knows nothing of what the commands are for.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue

import hiredis
import trio
from msgspec import Struct

from storage.errors import Unavailable
from storage.redis.link import Answer, Command
from storage.redis.routes import Route

_log = logging.getLogger(__name__)

WAITING_MAX_COMMANDS = 20_000
"""Commands that wait for their turn; over it, calls are refused and messages lost."""

WAITING_MAX_BYTES = 64 * 1024 * 1024
"""Likewise the bytes of messages that wait."""

PIPELINE_MAX_COMMANDS = 512
"""A pipeline is closed when it has so many, to keep the wait for its answers short."""

PIPELINE_MAX_BYTES = 1024 * 1024
"""Likewise, by the bytes of messages; one that is larger goes alone."""

BACKOFF_FIRST_S = 0.05
BACKOFF_LAST_S = 2.0
"""Between attempts to reach a Redis that is away: doubled from the first to the last, for good."""


class ScriptMissing(Unavailable):
    """The server does not have the script: send its text. Nothing was done."""


class PipelineStatistics(Struct, frozen=True):
    """`lost` counts messages that were accepted and then failed; `refused` all that was not."""

    connected: bool
    pipelines: int
    commands: int
    waiting_commands: int
    waiting_bytes: int
    refused: int
    lost: int
    interruptions: int


class _Call:
    """Commands of one caller, who waits for `wake`; where nobody waits, it is None.

    `counted` and `size` are what it weighs in the bounds, in commands and bytes.
    """

    __slots__ = ("answers", "commands", "counted", "error", "forgotten", "size", "wake")

    def __init__(
        self, commands: Sequence[Command], size: int, wake: Callable[[], object] | None
    ) -> None:
        self.commands = commands
        self.counted = len(commands)
        self.size = size
        self.wake = wake
        self.forgotten = False
        self.answers: list[Answer] = []
        self.error: Unavailable | None = None


class Pipeline:
    """Sends commands over a route, which is found anew by `find` whenever it has failed.

    `find` raises `Unavailable`. Calls come from the loop that it was made in.
    """

    def __init__(self, route: Route, find: Callable[[], Route]) -> None:
        self._find = find
        self._route: Route | None = route
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._held: _Call | None = None
        self._done: deque[_Call] = deque()
        self._token = trio.lowlevel.current_trio_token()
        self._closing = threading.Event()
        self._away: Unavailable | None = None
        self._interruptions = 0
        self._pipelines = 0
        self._lost = 0
        self._refused = 0
        # The loop counts what comes in, the thread what went out: no count has two writers.
        self._commands_in = self._commands_out = 0
        self._bytes_in = self._bytes_out = 0
        self._thread = threading.Thread(target=self._serve, name="redis-pipeline", daemon=True)
        self._thread.start()

    @property
    def interruptions(self) -> int:
        """Grows whenever something that was sent may be lost, on the server's side too."""
        route = self._route
        return self._interruptions + (route.interruptions if route else 0)

    async def run(self, commands: Sequence[Command]) -> list[Answer]:
        """The answers to these, which are sent one after another.

        Raises `Unavailable`, also where the server refused any of them.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        call = _Call(commands, 0, partial(trio.lowlevel.reschedule, trio.lowlevel.current_task()))
        if not self._submit(call):
            raise Unavailable(
                f"Redis is away: {self._away}"
                if self._away
                else f"{WAITING_MAX_COMMANDS} commands wait for Redis"
            )

        def forget(_: object) -> trio.lowlevel.Abort:
            call.forgotten = True
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(forget)
        if call.error is not None:
            # Each waiting task raises one of its own: a traceback belongs to one of them.
            raise Unavailable(str(call.error), applied=call.error.applied)
        for answer in call.answers:
            _raise_refusal(answer, alone=len(commands) == 1)
        return call.answers

    def post(self, command: Command, size: int) -> bool:
        """Send a command whose answer nobody waits for. False: it was not accepted."""
        return self._submit(_Call((command,), size, None))

    def beat(self, command: Command) -> None:
        """From another thread, and rarely: as `post`, without regard to bounds."""
        if self._away is None:
            call = _Call((command,), 0, None)
            call.counted = 0
            self._queue.put(call)

    def statistics(self) -> PipelineStatistics:
        return PipelineStatistics(
            connected=self._away is None,
            pipelines=self._pipelines,
            commands=self._commands_out,
            waiting_commands=max(0, self._commands_in - self._commands_out),
            waiting_bytes=max(0, self._bytes_in - self._bytes_out),
            refused=self._refused,
            lost=self._lost,
            interruptions=self.interruptions,
        )

    async def aclose(self) -> None:
        """Send what was accepted, and end the thread; soon, even where the server hangs."""
        self._closing.set()
        self._queue.put(None)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._thread.join)

    def _submit(self, call: _Call) -> bool:
        waiting = self._commands_in - self._commands_out + call.counted
        waiting_bytes = self._bytes_in - self._bytes_out + call.size
        if (
            self._away is not None
            or self._closing.is_set()
            or waiting > WAITING_MAX_COMMANDS
            or waiting_bytes > WAITING_MAX_BYTES
        ):
            self._refused += 1
            return False
        self._commands_in += call.counted
        self._bytes_in += call.size
        self._queue.put(call)
        return True

    def _serve(self) -> None:
        while calls := self._gather():
            self._do(calls)
            if self._away is not None:
                self._come_back()
        if self._route is not None:
            self._route.close()

    def _gather(self) -> list[_Call]:
        """What waits, as much as goes into one pipeline; waits for something. None left: closed."""
        call = self._held or self._queue.get()
        self._held = None
        calls: list[_Call] = []
        commands = size = 0
        while call is not None:
            commands += len(call.commands)
            size += call.size
            if calls and (commands > PIPELINE_MAX_COMMANDS or size > PIPELINE_MAX_BYTES):
                self._held = call
                break
            calls.append(call)
            try:
                call = self._queue.get_nowait()
            except Empty:
                break
        else:
            # Closed. Asked again after what was gathered with it, the queue says so once more.
            self._queue.put(None)
        return calls

    def _do(self, calls: list[_Call]) -> None:
        wanted = [call for call in calls if not call.forgotten]
        commands = [command for call in wanted for command in call.commands]
        answers: list[Answer] = []
        try:
            if self._route is None:
                raise self._away or Unavailable("Redis is away")
            if commands:
                answers = self._route.exchange(commands)
        except Exception as fault:  # noqa: BLE001 - the supervisor of all work in this thread
            error = _as_unavailable(fault)
            self._lose(error)
            for call in wanted:
                call.error = error
                self._lost += call.wake is None
        else:
            self._pipelines += 1
            start = 0
            for call in wanted:
                call.answers = answers[start : start + len(call.commands)]
                start += len(call.commands)
                self._lost += call.wake is None and isinstance(call.answers[0], Exception)
        self._hand_back(calls)

    def _hand_back(self, calls: list[_Call]) -> None:
        self._commands_out += sum(call.counted for call in calls)
        self._bytes_out += sum(call.size for call in calls)
        self._done.extend(call for call in calls if call.wake is not None)
        if self._done:
            # The loop may have ended before this daemon: then nobody waits.
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._wake, idempotent=True)

    def _wake(self) -> None:
        while self._done:
            call = self._done.popleft()
            if call.wake is not None and not call.forgotten:
                call.wake()

    def _lose(self, error: Unavailable) -> None:
        if self._away is None:
            _log.warning("Redis went away: %s", error)
        self._away = error
        if self._route is not None:
            self._interruptions += 1 + self._route.interruptions
            self._route.close()
            self._route = None

    def _come_back(self) -> None:
        """Fail what waits, since it may be old when Redis is back, and look for Redis."""
        backoff_s = BACKOFF_FIRST_S
        while not self._closing.is_set():
            while self._held is not None or not self._queue.empty():
                if not (calls := self._gather()):
                    return
                self._do(calls)
            try:
                self._route = self._find()
            except Exception as fault:  # noqa: BLE001 - likewise: the thread looks again
                self._away = _as_unavailable(fault)
                self._closing.wait(backoff_s)
                backoff_s = min(BACKOFF_LAST_S, 2 * backoff_s)
            else:
                self._away = None
                _log.info("Redis is back")
                return


def _as_unavailable(fault: Exception) -> Unavailable:
    if isinstance(fault, Unavailable):
        return fault
    _log.error("a defect in what sends to Redis", exc_info=fault)
    return Unavailable(f"a defect: {fault!r}", applied=None)


def _raise_refusal(answer: Answer, *, alone: bool) -> None:
    if isinstance(answer, Unavailable):
        raise Unavailable(str(answer), applied=answer.applied)
    if isinstance(answer, hiredis.ReplyError):
        text = str(answer)
        if text.startswith("NOSCRIPT"):
            raise ScriptMissing(f"Redis: {text}")
        raise Unavailable(f"Redis refused: {text}", applied=False if alone else None)
