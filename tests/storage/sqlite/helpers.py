"""A disk of a given size, and doors that hold a thread until a test opens them."""

from __future__ import annotations

import resource
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import trio


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes: a full disk that also stops root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Door:
    """Work for a thread that lasts until the test opens it."""

    WAIT_MAX_SECONDS = 10

    def __init__(self) -> None:
        self._open = threading.Event()
        self._reached = threading.Event()

    def open(self) -> None:
        self._open.set()

    async def reached(self) -> None:
        """Wait until a thread stands before the door."""
        assert await trio.to_thread.run_sync(self._reached.wait, self.WAIT_MAX_SECONDS)

    def __call__(self, _: sqlite3.Connection) -> None:
        self._reached.set()
        assert self._open.wait(self.WAIT_MAX_SECONDS), "the test never opened the door"
