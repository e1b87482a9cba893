"""Threads that read, each on its own connection.

Every call sees one consistent state of the database. Nothing here can write.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import trio

from storage.sqlite.connection import translated
from storage.sqlite.hop import Call, Calls

T = TypeVar("T")

WAITING_READS_MAX = 1_024


class Readers:
    """A small pool of reading threads with one bounded queue."""

    def __init__(self, connections: Sequence[sqlite3.Connection]) -> None:
        self._calls = Calls("reader", WAITING_READS_MAX)
        self._connections = connections
        self._threads = [
            threading.Thread(target=self._serve, args=(c,), name=f"sqlite-reader-{n}", daemon=True)
            for n, c in enumerate(connections)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `work` on one snapshot. Raises `Unavailable`, also when too many wait."""
        return await self._calls.run(work)

    def submit(self, call: Call[Any]) -> None:
        """The same without waiting: `call.wake` is called in the loop when it is done."""
        self._calls.submit(call)

    async def aclose(self) -> None:
        """Finish what was accepted and end the threads."""
        self._calls.close(len(self._threads))
        with trio.CancelScope(shield=True):
            for thread in self._threads:
                await trio.to_thread.run_sync(thread.join)
        for connection in self._connections:
            connection.close()

    def _serve(self, connection: sqlite3.Connection) -> None:
        while (call := self._calls.queue.get()) is not None:
            _read(connection, call)
            self._calls.hand_back((call,))


def _read(connection: sqlite3.Connection, call: Call[Any]) -> None:
    try:
        with translated("read"):
            connection.execute("BEGIN")
            try:
                call.result = call.work(connection)
            finally:
                connection.execute("COMMIT")
    except Exception as error:  # noqa: BLE001 - delivered to the one who asked
        call.error = error
