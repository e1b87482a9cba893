"""The readiness loop is told what a connection waits for only when that makes a difference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from actors.connection import HELD_BY_JOB, Connection
from actors.reader import READ, Reader
from broker.wire import commands as c
from tests.actors.world import World, world
from tests.helpers.peer import Peer


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the loop was told to wait for, since the connections were registered."""
    masks: list[int] = []
    modify = Reader.modify

    def noting(reader: Reader, connection: Connection, mask: int) -> None:
        masks.append(mask)
        modify(reader, connection, mask)

    monkeypatch.setattr(Reader, "modify", noting)
    return masks


async def accept_slow(made: World) -> tuple[Connection, Peer, Callable[[], None]]:
    """A connection whose pings are answered one at a time, by a call."""
    waiting: list[int] = []

    def slow_ping(connection: Connection, command: c.Ping) -> None:
        connection.hold(HELD_BY_JOB)
        waiting.append(command.id)

    made.node.opening_table = {c.Ping: slow_ping}
    connection, peer = made.accept()
    await trio.testing.wait_all_tasks_blocked()

    def answer() -> None:
        connection.ok(waiting.pop())
        connection.release(HELD_BY_JOB)
        made.node.flusher.kick()

    return connection, peer, answer


async def test_who_waits_in_silence_costs_no_call(told: list[int]) -> None:
    async with world() as made:
        connection, peer, answer = await accept_slow(made)
        for _ in range(3):
            number = await peer.send("ping")
            await made.until(lambda: bool(connection.held))
            answer()
            assert await peer.carrier.receive() == {"t": "ok", "id": number}
        assert told == []


async def test_who_goes_on_while_held_is_read_again_when_released(told: list[int]) -> None:
    async with world() as made:
        connection, peer, answer = await accept_slow(made)
        first = await peer.send("ping")
        await made.until(lambda: bool(connection.held))
        second = await peer.send("ping")
        await made.until(lambda: told == [0])
        await trio.testing.wait_all_tasks_blocked()
        passes = made.node.reader.passes
        await trio.testing.wait_all_tasks_blocked()
        assert made.node.reader.passes == passes, "the loop must not spin on what is not read"
        assert connection.in_flight == 1
        answer()
        assert await peer.carrier.receive() == {"t": "ok", "id": first}
        await made.until(lambda: bool(connection.held))
        assert told == [0, READ]
        answer()
        assert await peer.carrier.receive() == {"t": "ok", "id": second}


async def test_who_hangs_up_while_held_is_let_go() -> None:
    async with world() as made:
        connection, peer, _ = await accept_slow(made)
        await peer.send("ping")
        await made.until(lambda: bool(connection.held))
        await peer.aclose()
        await made.until(lambda: connection not in made.node.connections)
