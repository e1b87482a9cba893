"""The writing thread: what gathers shares a transaction, faults stay apart, nothing is lost."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from storage.errors import NameTaken, Unavailable
from storage.sqlite import writer as writing
from storage.sqlite.connection import connect_writer
from storage.sqlite.writer import Writer
from tests.storage.sqlite.helpers import Door


class Nothing:
    """Remembers nothing but how often it was told to forget, and has one chore at most."""

    def __init__(self) -> None:
        self.forgotten = 0
        self.todo: Callable[[sqlite3.Connection], None] | None = None

    def forget(self) -> None:
        self.forgotten += 1

    def chore(self) -> Callable[[sqlite3.Connection], None] | None:
        todo, self.todo = self.todo, None
        return todo


class Bench:
    """A writer on a table of numbers, with the statements that it ran."""

    def __init__(self, path: Path) -> None:
        self.connection = connect_writer(path)
        self.connection.execute("CREATE TABLE t (x INTEGER UNIQUE)")
        self.path = path
        self.statements: list[str] = []
        self.connection.set_trace_callback(self.statements.append)
        self.remembered = Nothing()
        self.writer = Writer(self.connection, self.remembered, alone=True)

    async def put(self, x: int) -> None:
        await self.writer.run(lambda db: db.execute("INSERT INTO t VALUES (?)", (x,)))

    def stored(self) -> list[int]:
        with sqlite3.connect(self.path) as other:
            return [x for (x,) in other.execute("SELECT x FROM t ORDER BY x")]

    def begun(self) -> int:
        return self.statements.count("BEGIN IMMEDIATE")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "t.sqlite")
    yield made
    await made.writer.aclose()


async def test_what_gathers_during_a_transaction_shares_the_next(bench: Bench) -> None:
    door = Door()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.writer.run, door)
        await door.reached()
        for x in range(20):
            nursery.start_soon(bench.put, x)
        await wait_all_tasks_blocked()
        door.open()
    assert bench.stored() == list(range(20))
    assert bench.begun() == 2


async def test_a_faulty_call_harms_none_beside_it(bench: Bench) -> None:
    door = Door()
    errors: dict[int, BaseException] = {}

    async def put(x: int, then: Exception | None = None) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute("INSERT INTO t VALUES (?)", (x,))
            if then:
                raise then

        try:
            await bench.writer.run(work)
        except (ValueError, NameTaken, ZeroDivisionError) as error:
            errors[x] = error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.writer.run, door)
        await door.reached()
        for x, then in ((1, None), (2, NameTaken("b")), (3, ZeroDivisionError()), (4, None)):
            nursery.start_soon(put, x, then)
        await wait_all_tasks_blocked()
        nursery.start_soon(put, 4)
        await wait_all_tasks_blocked()
        door.open()
    assert bench.stored() == [1, 4]
    assert {x: type(error) for x, error in errors.items()} == {
        2: NameTaken,
        3: ZeroDivisionError,
        4: ValueError,
    }
    assert bench.begun() == 2
    assert bench.remembered.forgotten >= 3


async def test_when_the_database_fails_all_of_the_transaction_fails(bench: Bench) -> None:
    door = Door()
    errors: list[Unavailable] = []

    async def put(x: int) -> None:
        with pytest.raises(Unavailable) as caught:
            await bench.put(x)
        errors.append(caught.value)

    async def fail() -> None:
        with pytest.raises(Unavailable, match="no such table"):
            await bench.writer.run(lambda db: db.execute("INSERT INTO missing VALUES (1)"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.writer.run, door)
        await door.reached()
        nursery.start_soon(put, 1)
        nursery.start_soon(fail)
        nursery.start_soon(put, 2)
        await wait_all_tasks_blocked()
        door.open()
    assert [error.applied for error in errors] == [False, False]
    assert errors[0] is not errors[1]
    assert bench.stored() == []
    await bench.put(3)
    assert bench.stored() == [3]


async def test_a_cancelled_call_is_forgotten_and_may_still_land(bench: Bench) -> None:
    door = Door()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.writer.run, door)
        await door.reached()
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when_blocked, scope)
            await bench.put(1)
        assert scope.cancelled_caught
        door.open()
    await bench.put(2)
    assert bench.stored() == [1, 2]


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_a_call_in_a_cancelled_scope_is_not_even_queued(bench: Bench) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await bench.put(1)
    await bench.put(2)
    assert bench.stored() == [2]


async def test_closing_finishes_what_was_accepted_and_refuses_the_rest(bench: Bench) -> None:
    door = Door()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.writer.run, door)
        await door.reached()
        for x in range(5):
            nursery.start_soon(bench.put, x)
        await wait_all_tasks_blocked()
        nursery.start_soon(bench.writer.aclose)
        await wait_all_tasks_blocked()
        with pytest.raises(Unavailable, match="closed") as refused:
            await bench.put(9)
        assert refused.value.applied is False
        door.open()
    assert bench.stored() == list(range(5))


async def test_a_full_queue_refuses(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "WAITING_WRITES_MAX", 3)
    crowded = Writer(connect_writer(bench.path), Nothing(), alone=True)
    door = Door()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crowded.run, door)
        await door.reached()
        for _ in range(3):
            nursery.start_soon(crowded.run, lambda db: None)
        await wait_all_tasks_blocked()
        with pytest.raises(Unavailable, match="3 calls waiting") as refused:
            await crowded.run(lambda db: None)
        assert refused.value.applied is False
        door.open()
    await crowded.aclose()


async def test_a_chore_is_done_between_transactions_and_may_fail(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.remembered.todo = lambda db: db.execute("INSERT INTO t VALUES (100)") and None
    await bench.put(1)
    await bench.put(2)
    assert bench.stored() == [1, 2, 100]
    bench.remembered.todo = lambda db: db.execute("INSERT INTO missing VALUES (1)") and None
    await bench.put(3)
    await bench.put(4)
    assert bench.stored() == [1, 2, 3, 4, 100]
    assert "missing" in caplog.text
