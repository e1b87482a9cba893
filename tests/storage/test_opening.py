"""What is opened in a thread is taken by who asked for it, or closed: never both, never neither."""

from __future__ import annotations

import threading
import time

import pytest
import trio

from storage.opening import opened

PATIENCE_S = 10


class Thing:
    """Counts how often it is closed."""

    def __init__(self) -> None:
        self.closed = 0
        self.gone = threading.Event()

    def close(self) -> None:
        self.closed += 1
        self.gone.set()


async def test_what_is_opened_is_taken() -> None:
    thing = Thing()
    assert await opened(lambda: thing) is thing
    assert not thing.closed


async def test_why_it_cannot_be_opened_is_told() -> None:
    def fail() -> Thing:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        await opened(fail)


async def test_who_is_cancelled_does_not_wait_and_what_comes_then_is_closed() -> None:
    thing, begun, let = Thing(), trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def slow() -> Thing:
        token.run_sync_soon(begun.set)
        assert let.wait(PATIENCE_S)
        return thing

    with trio.fail_after(PATIENCE_S / 2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened, slow)
            await begun.wait()
            nursery.cancel_scope.cancel()
    assert not thing.closed
    let.set()
    assert await trio.to_thread.run_sync(thing.gone.wait, PATIENCE_S)
    assert thing.closed == 1


async def test_what_is_there_in_the_moment_of_a_cancellation_is_closed() -> None:
    thing, scope = Thing(), trio.CancelScope()
    token = trio.lowlevel.current_trio_token()

    def cancelling() -> Thing:
        # The loop is kept busy for a moment, and finds both then: that, and that we are done.
        token.run_sync_soon(scope.cancel)
        token.run_sync_soon(time.sleep, 0.05)
        return thing

    with scope:
        await opened(cancelling)
    assert scope.cancelled_caught
    assert await trio.to_thread.run_sync(thing.gone.wait, PATIENCE_S)
    assert thing.closed == 1
