"""Lookups that travel together: one hop for all who ask at once, and each gets its own answer."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from storage.errors import Unavailable
from storage.sqlite import lookup as looking
from storage.sqlite.lookup import Lookup
from storage.sqlite.readers import Readers
from tests.storage.sqlite.helpers import Door


@pytest.fixture
async def readers(tmp_path: Path) -> AsyncIterator[Readers]:
    connection = sqlite3.connect(tmp_path / "x", isolation_level=None, check_same_thread=False)
    pool = Readers([connection])
    yield pool
    await pool.aclose()


class Squares:
    """Answers with squares of even numbers; the first hop lasts until the door is opened."""

    def __init__(self) -> None:
        self.door = Door()
        self.asked: list[list[int]] = []

    def __call__(self, db: sqlite3.Connection, keys: list[int]) -> dict[int, list[int]]:
        self.asked.append(sorted(keys))
        self.door(db)
        if -1 in keys:
            db.execute("SELECT missing")
        return {key: [key * key] for key in keys if key % 2 == 0}


async def test_who_asks_meanwhile_joins_one_hop(readers: Readers) -> None:
    squares = Squares()
    lookup = Lookup(readers, squares)
    answers: dict[int, dict[int, list[int]]] = {}

    async def ask(number: int) -> None:
        answers[number] = await lookup.get([number, 4])

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(ask, number)
            await wait_all_tasks_blocked()
        squares.door.open()
    assert squares.asked == [[0, 4], [1, 2, 3, 4, 5, 6, 7]]
    assert answers[3] == {4: [16]}
    assert answers[6] == {6: [36], 4: [16]}
    answers[6][4].append(99)
    assert answers[5] == {4: [16]}


async def test_a_hop_is_bounded(readers: Readers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "KEYS_PER_HOP", 5)
    squares = Squares()
    lookup = Lookup(readers, squares)
    async with trio.open_nursery() as nursery:
        for keys in ([0], [1, 2], [3, 4], [5, 6], list(range(10, 20)), [20]):
            nursery.start_soon(lookup.get, keys)
            await wait_all_tasks_blocked()
        squares.door.open()
    assert squares.asked == [[0], [1, 2, 3, 4], [5, 6], list(range(10, 20)), [20]]


async def test_a_cancelled_asker_leaves_the_others_their_answer(readers: Readers) -> None:
    squares = Squares()
    lookup = Lookup(readers, squares)
    answers: dict[int, dict[int, list[int]]] = {}

    async def ask(number: int) -> None:
        answers[number] = await lookup.get([number])

    async with trio.open_nursery() as nursery:
        scopes = {}
        for number in (2, 4, 6, 8):
            scope = scopes[number] = trio.CancelScope()
            nursery.start_soon(_within, scope, ask, number)
            await wait_all_tasks_blocked()
        scopes[2].cancel()
        scopes[6].cancel()
        await wait_all_tasks_blocked()
        squares.door.open()
    assert answers == {4: {4: [16]}, 8: {8: [64]}}
    assert squares.asked == [[2], [4, 8]]
    assert await lookup.get([10]) == {10: [100]}


async def _within(scope: trio.CancelScope, ask: object, number: int) -> None:
    with scope:
        await ask(number)  # type: ignore[operator]


async def test_a_failure_reaches_each_asker_as_its_own_and_the_next_hop_goes_on(
    readers: Readers,
) -> None:
    squares = Squares()
    lookup = Lookup(readers, squares)
    errors: list[Unavailable] = []

    async def fail(key: int) -> None:
        with pytest.raises(Unavailable, match="missing") as caught:
            await lookup.get([key])
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lookup.get, [2])
        await wait_all_tasks_blocked()
        nursery.start_soon(fail, -1)
        nursery.start_soon(fail, 4)
        await wait_all_tasks_blocked()
        squares.door.open()
    assert len(errors) == 2
    assert errors[0] is not errors[1]
    assert await lookup.get([2, 3]) == {2: [4]}


async def test_too_many_askers_are_refused(
    readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "WAITING_LOOKUPS_MAX", 2)
    squares = Squares()
    lookup = Lookup(readers, squares)
    async with trio.open_nursery() as nursery:
        for key in (1, 2, 3):
            nursery.start_soon(lookup.get, [key])
            await wait_all_tasks_blocked()
        with pytest.raises(Unavailable, match="2 lookups are waiting"):
            await lookup.get([4])
        squares.door.open()


async def test_nobody_waits_for_a_closed_pool(readers: Readers) -> None:
    squares = Squares()
    lookup = Lookup(readers, squares)
    await readers.aclose()
    with pytest.raises(Unavailable, match="closed"):
        await lookup.get([1])
