"""Opening in a thread what may be long in answering: who is cancelled meanwhile does not wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

import trio


class Closable(Protocol):
    """What is closed by a blocking call."""

    def close(self) -> None:
        """Let go of everything."""


T = TypeVar("T", bound=Closable)


async def opened(make: Callable[[], T]) -> T:
    """What `make` returns, which is run in a thread. Raises what it raises.

    Cancelled, this leaves the thread to itself; what it makes then is closed and nobody's.
    """
    deciding = threading.Lock()
    made: list[T] = []
    wanted = True

    def run() -> None:
        thing = make()
        with deciding:
            if wanted:
                made.append(thing)
                return
        thing.close()

    try:
        await trio.to_thread.run_sync(run, abandon_on_cancel=True)
    except trio.Cancelled:
        with deciding:
            wanted = False
        with trio.CancelScope(shield=True):
            for thing in made:  # in the very moment in which we were cancelled
                await trio.to_thread.run_sync(thing.close)
        raise
    return made[0]
