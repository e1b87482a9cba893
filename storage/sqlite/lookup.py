"""Lookups that travel together: who asks while an answer is under way joins the next hop.

Hundreds of logins a second each ask for one user; a hop to a thread costs more than the query.
What is asked after an answer left is never given from that answer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Hashable, Iterable
from copy import deepcopy
from typing import Generic, TypeVar

import trio

from storage.errors import Unavailable
from storage.sqlite.hop import Call
from storage.sqlite.readers import Readers

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

KEYS_PER_HOP = 512
"""Enough to share a hop; few enough that nobody waits long for what others asked."""

WAITING_LOOKUPS_MAX = 8_192


class _Waiter(Generic[K, V]):
    __slots__ = ("error", "found", "keys", "task")

    def __init__(self, keys: list[K]) -> None:
        self.keys = keys
        self.task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        self.found: dict[K, V] = {}
        self.error: BaseException | None = None


class Lookup(Generic[K, V]):
    """`fetch(connection, keys)` for all who ask at once; each gets what it asked for."""

    def __init__(
        self, readers: Readers, fetch: Callable[[sqlite3.Connection, list[K]], dict[K, V]]
    ) -> None:
        self._readers = readers
        self._fetch = fetch
        self._gathered: list[_Waiter[K, V]] = []
        self._under_way = False

    async def get(self, keys: Iterable[K]) -> dict[K, V]:
        """What is known of these keys. Raises `Unavailable`, also when too many wait."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if len(self._gathered) >= WAITING_LOOKUPS_MAX:
            raise Unavailable(f"{WAITING_LOOKUPS_MAX} lookups are waiting", applied=False)
        waiter: _Waiter[K, V] = _Waiter(list(keys))
        if self._under_way:
            self._gathered.append(waiter)
        else:
            self._send([waiter])

        def forget(_: object) -> trio.lowlevel.Abort:
            waiter.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(forget)
        if waiter.error is not None:
            raise waiter.error
        return waiter.found

    def _send(self, waiters: list[_Waiter[K, V]]) -> None:
        keys = list({key for waiter in waiters for key in waiter.keys})
        call = Call(lambda connection: self._fetch(connection, keys))
        call.wake = lambda: self._arrived(waiters, call)
        self._readers.submit(call)
        self._under_way = True

    def _arrived(self, waiters: list[_Waiter[K, V]], call: Call[dict[K, V]]) -> None:
        self._under_way = False
        if call.error is None:
            _share(waiters, call.result or {})
        else:
            _fail(waiters, call.error)
        while self._gathered and not self._under_way:
            joined = self._next()
            try:
                self._send(joined)
            except Unavailable as error:
                _fail(joined, error)

    def _next(self) -> list[_Waiter[K, V]]:
        """As many of the gathered as fill a hop, at least one; the forgotten are left out."""
        joined: list[_Waiter[K, V]] = []
        keys = taken = 0
        for waiter in self._gathered:
            if joined and keys + len(waiter.keys) > KEYS_PER_HOP:
                break
            taken += 1
            if waiter.task is not None:
                joined.append(waiter)
                keys += len(waiter.keys)
        del self._gathered[:taken]
        return joined


def _share(waiters: list[_Waiter[K, V]], found: dict[K, V]) -> None:
    given: set[K] = set()
    for waiter in waiters:
        for key in waiter.keys:
            if key in found:
                # Records are mutable, so no two tasks may hold the same one.
                waiter.found[key] = deepcopy(found[key]) if key in given else found[key]
                given.add(key)
        _wake(waiter)


def _fail(waiters: list[_Waiter[K, V]], error: BaseException) -> None:
    for waiter in waiters:
        # A traceback belongs to one task.
        waiter.error = Unavailable(str(error), applied=False)
        waiter.error.__cause__ = error
        _wake(waiter)


def _wake(waiter: _Waiter[K, V]) -> None:
    if waiter.task is not None:
        trio.lowlevel.reschedule(waiter.task)
        waiter.task = None
