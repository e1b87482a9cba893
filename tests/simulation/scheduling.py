"""trio made repeatable, and processes that can stand still, as under SIGSTOP. All of trio that is
used here and not documented is in this file, and test_scheduling.py holds it.

A process is a group of tasks, told by a context variable that tasks inherit from who started them.
While it stands still none of its tasks takes a step: what would wake them (answers, timers,
cancellations) is kept, and happens all at once when it goes on; the clock has gone on without it.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

import trio
import trio._core._run as trio_run
import trio.testing

T = TypeVar("T")

_process: ContextVar[Process | None] = ContextVar("process", default=None)


class Process:
    """Tasks that stand still and go on together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopped = False
        self._held: list[trio.lowlevel.Task] = []

    def start(self, nursery: trio.Nursery, job: Callable[..., Awaitable[object]]) -> None:
        """Run a job, and all that it starts, as part of the process."""
        context = copy_context()
        context.run(_process.set, self)
        context.run(nursery.start_soon, job)

    def stop(self) -> None:
        """SIGSTOP: from the next step on."""
        self.stopped = True

    def go_on(self) -> None:
        """SIGCONT."""
        self.stopped = False
        held, self._held = self._held, []
        trio_run.GLOBAL_RUN_CONTEXT.runner.runq.extend(held)

    def hold(self, task: trio.lowlevel.Task) -> None:
        """Keep a task that was just scheduled, until the process goes on."""
        runq = trio_run.GLOBAL_RUN_CONTEXT.runner.runq
        assert runq[-1] is task
        runq.pop()
        self._held.append(task)


def current_process() -> Process | None:
    """The process that the running task is part of; None for the world around them."""
    return _process.get()


class _Standstill(trio.abc.Instrument):
    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        process = task.context.get(_process)
        if process is not None and process.stopped:
            process.hold(task)


class Outside:
    """The world outside all processes: what starts here goes on whatever becomes of them."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._context = copy_context()

    def start(self, job: Callable[..., Awaitable[object]], *args: Any) -> None:
        self._context.run(self._nursery.start_soon, job, *args)


def run_repeatably(seed: int, job: Callable[[], Awaitable[T]]) -> T:
    """Run on a clock that jumps over all waiting; the seed decides the order of all steps.

    Other sources of chance are the job's own business, except the module `random`, which is seeded
    too, and `secrets.token_hex`, which names things. The order of sets of strings follows
    PYTHONHASHSEED.
    """
    before = random.getstate()
    token_hex = secrets.token_hex
    names = random.Random(seed)
    secrets.token_hex = lambda nbytes=32: names.randbytes(nbytes or 32).hex()
    scheduler = trio_run._r.getstate()
    deterministic = trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    random.seed(seed)
    trio_run._r.seed(seed)
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    try:
        return trio.run(
            job,
            clock=trio.testing.MockClock(autojump_threshold=0),
            instruments=[_Standstill()],
        )
    finally:
        secrets.token_hex = token_hex
        random.setstate(before)
        trio_run._r.setstate(scheduler)
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = deterministic  # type: ignore[misc]
