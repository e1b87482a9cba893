"""The one thread that writes. Calls that gathered while a transaction ran share the next one.

Each call is done as a whole or not at all; a faulty one does not harm those beside it. The thread
ends only when it is told to, with all accepted calls done. Knows nothing of what is written.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from typing import Any, Protocol, TypeVar

import trio

from storage.errors import Unavailable
from storage.sqlite.connection import translated
from storage.sqlite.hop import Call, Calls

T = TypeVar("T")

_log = logging.getLogger(__name__)

WAITING_WRITES_MAX = 4_096
JOINED_WRITES_MAX = 256
"""Calls in one transaction: enough to share the cost of a sync, few enough to stay short."""


class Remembered(Protocol):
    """What is remembered in the writer's thread from one transaction to the next."""

    def forget(self) -> None:
        """A transaction did not come to its end: what was learnt in it is worthless."""

    def chore(self) -> Callable[[sqlite3.Connection], None] | None:
        """Work of a transaction of its own that is due now, for which nobody waits."""


class Writer:
    """Runs writes in group commits on its own connection.

    Unless `alone`, another process may write too, and nothing is remembered across transactions.
    """

    def __init__(
        self, connection: sqlite3.Connection, remembered: Remembered, *, alone: bool
    ) -> None:
        self._connection = connection
        self._remembered = remembered
        self._alone = alone
        self._calls = Calls("writer", WAITING_WRITES_MAX)
        self._thread = threading.Thread(target=self._serve, name="sqlite-writer", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` in a transaction; when this returns it is durable. Raises `Unavailable`."""
        return await self._calls.run(work)

    async def aclose(self) -> None:
        """Finish what was accepted and end the thread."""
        self._calls.close(1)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._thread.join)
        self._connection.close()

    def _serve(self) -> None:
        closing = False
        while not closing:
            call = self._calls.queue.get()
            batch: list[Call[Any]] = []
            while call is not None:
                batch.append(call)
                if len(batch) == JOINED_WRITES_MAX:
                    break
                try:
                    call = self._calls.queue.get_nowait()
                except Empty:
                    break
            closing = call is None
            if batch:
                self._transaction(batch)
                self._calls.hand_back(batch)
                self._do_chore()

    def _do_chore(self) -> None:
        if chore := self._remembered.chore():
            call = Call(chore)
            self._transaction([call])
            if call.error is not None:
                _log.warning("a chore of the store failed, to be tried later: %s", call.error)

    def _transaction(self, batch: list[Call[Any]]) -> None:
        connection = self._connection
        try:
            with translated("begin a transaction"):
                connection.execute("BEGIN IMMEDIATE")
            if not self._alone:
                self._remembered.forget()
            if len(batch) == 1:
                batch[0].result = self._do(batch[0])
            else:
                for call in batch:
                    self._do_apart(call)
            with translated("commit", committing=True):
                connection.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001 - the supervisor of all work in this thread
            self._roll_back()
            for call in batch:
                if call.error is None:
                    call.error = _copy(error)

    def _do(self, call: Call[T]) -> T:
        with translated("write"):
            return call.work(self._connection)

    def _do_apart(self, call: Call[Any]) -> None:
        """One call among others: if it is at fault, only its own writes are undone."""
        connection = self._connection
        with translated("write"):
            connection.execute("SAVEPOINT call")
        try:
            call.result = self._do(call)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - delivered to the one who asked
            call.error = error
            self._remembered.forget()
            with translated("write"):
                connection.execute("ROLLBACK TO call")
        with translated("write"):
            connection.execute("RELEASE call")

    def _roll_back(self) -> None:
        self._remembered.forget()
        # SQLite has often rolled back by itself; if this fails too, BEGIN will tell.
        if self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")


def _copy(error: BaseException) -> BaseException:
    # Each waiting task raises an exception of its own: a traceback belongs to one of them.
    if isinstance(error, Unavailable):
        return Unavailable(str(error), applied=error.applied)
    return error
