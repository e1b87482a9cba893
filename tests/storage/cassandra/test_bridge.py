"""From trio to the driver and back: every permit comes back, whoever gave up waiting."""

from __future__ import annotations

import gc
import socket
import threading
from typing import Any
from unittest.mock import patch

import pytest
import trio
import trio.testing
from cassandra.query import SimpleStatement

from storage.cassandra.bridge import Bridge
from storage.cassandra.connection import READ, WRITE, connect
from storage.cassandra.packing import BATCH_MAX_BYTES
from storage.cassandra.session import Connected
from storage.errors import Unavailable

LOCAL = "SELECT key FROM system.local"
WRONG = "SELECT nothing FROM nowhere.at_all"


async def all_back(bridge: Bridge) -> None:
    """Returns when nothing is under way any more."""
    with trio.fail_after(20):
        while bridge.under_way:  # noqa: ASYNC110 - nobody is told when the driver answers
            await trio.sleep(0.005)


async def test_answers_come_in_the_order_asked_for(cassandra: Connected) -> None:
    bridge = Bridge(cassandra.session)
    asked = [f"SELECT key, {n} AS n FROM system.local" for n in ("(int) 1", "(int) 2", "(int) 3")]
    assert await bridge.all(asked, READ) == [[("local", n)] for n in (1, 2, 3)]
    assert await bridge.all([], READ) == []
    assert bridge.under_way == 0


async def test_a_request_leaves_nothing_to_the_collector(cassandra: Connected) -> None:
    bridge = Bridge(cassandra.session)
    await bridge.all([LOCAL] * 50, READ)
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            await bridge.all([LOCAL] * 50, READ)
        # A cycle left in each would be some fifty objects a request.
        assert gc.collect() < 1_000
    finally:
        gc.enable()


def test_requests_leave_at_once_and_in_few_pieces(cassandra: Connected) -> None:
    cluster = connect(cassandra.settings)
    try:
        cluster.connect()
        connection = cluster.control_connection._connection
        assert connection._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert connection.out_buffer_size > BATCH_MAX_BYTES
    finally:
        cluster.shutdown()


async def test_no_more_are_under_way_than_may_be(cassandra: Connected) -> None:
    bridge = Bridge(cassandra.session, in_flight=3)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, bridge.under_way)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        assert len(await bridge.all([LOCAL] * 50, READ)) == 50
        nursery.cancel_scope.cancel()
    assert most == 3
    assert bridge.under_way == 0


class Counting(Bridge):
    """Counts the wake-ups of its loop, and lets a thread wait for answers of the driver."""

    wakeups = 0

    def __init__(self, connected: Connected) -> None:
        super().__init__(connected.session)
        self.came = threading.Semaphore(0)

    def _answer(self, *arguments: Any) -> None:
        super()._answer(*arguments)
        self.came.release()

    def _drain(self) -> None:
        self.wakeups += 1
        super()._drain()


@pytest.mark.parametrize("requests", [1, 2, 50])
async def test_the_loop_wakes_once_for_all_answers_that_came_while_it_was_busy(
    cassandra: Connected, requests: int
) -> None:
    bridge = Counting(cassandra)
    send, left = bridge._send, requests

    def send_and_be_busy(*arguments: Any) -> None:
        nonlocal left
        send(*arguments)
        left -= 1
        if not left:
            assert all(bridge.came.acquire(timeout=20) for _ in range(requests))

    with patch.object(bridge, "_send", send_and_be_busy):
        assert await bridge.all([LOCAL] * requests, READ) == [[("local",)]] * requests
    assert bridge.wakeups == 1
    assert await bridge.one(LOCAL, READ) == [("local",)]
    assert bridge.wakeups == 2


async def test_one_more_than_may_wait_is_refused_and_the_others_get_their_answers(
    cassandra: Connected,
) -> None:
    bridge = Bridge(cassandra.session, in_flight=1)
    bridge._permits.acquire_nowait()
    answers = []

    async def ask() -> None:
        answers.append(await bridge.one(LOCAL, READ))

    with patch("storage.cassandra.bridge.WAITING_MAX_TASKS", 3):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Unavailable, match="3 requests are waiting") as caught:
                await bridge.one(LOCAL, READ)
            assert caught.value.applied is False
            assert answers == []
            bridge._permits.release()
    assert answers == [[("local",)]] * 3
    assert bridge.under_way == 0


async def test_what_is_refused_after_a_part_of_it_was_sent_is_in_doubt(
    cassandra: Connected,
) -> None:
    bridge = Bridge(cassandra.session, in_flight=1)
    with (
        patch("storage.cassandra.bridge.WAITING_MAX_TASKS", 0),
        pytest.raises(Unavailable, match="requests are waiting") as caught,
    ):
        await bridge.all([LOCAL, LOCAL], READ)
    assert caught.value.applied is None
    await all_back(bridge)


@pytest.mark.parametrize("requests", [1, 2, 3, 10])
@pytest.mark.parametrize("checkpoints", [0, 1, 2, 3, 5, 8])
async def test_a_permit_comes_back_with_the_answer_wherever_one_gives_up(
    cassandra: Connected, requests: int, checkpoints: int
) -> None:
    bridge = Bridge(cassandra.session, in_flight=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bridge.all, [LOCAL] * requests, READ)
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    await all_back(bridge)
    assert await bridge.all([LOCAL] * 3, READ) == [[("local",)]] * 3


async def test_one_failure_of_many_is_told_when_all_have_ended(cassandra: Connected) -> None:
    bridge = Bridge(cassandra.session)
    with pytest.raises(Unavailable) as caught:
        await bridge.all([LOCAL, WRONG, LOCAL], WRITE)
    assert caught.value.applied is None, "the others may have written"
    assert bridge.under_way == 0
    with pytest.raises(Unavailable) as caught:
        await bridge.all([WRONG, WRONG], WRITE)
    assert caught.value.applied is False


async def test_an_answer_that_does_not_come_in_time_leaves_all_in_doubt(
    cassandra: Connected,
) -> None:
    profile = cassandra.session.execution_profile_clone_update(WRITE, request_timeout=1e-6)
    bridge = Bridge(cassandra.session)
    with pytest.raises(Unavailable) as caught:
        await bridge.one(SimpleStatement(LOCAL), profile)
    assert caught.value.applied is None
    await all_back(bridge)


async def test_a_closed_bridge_has_nothing_under_way_and_takes_nothing(
    cassandra: Connected,
) -> None:
    bridge = Bridge(cassandra.session)
    answers: list[list[tuple[str]]] = []

    async def ask() -> None:
        answers.extend(await bridge.all([LOCAL] * 20, READ))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await bridge.aclose()
    assert answers == [[("local",)]] * 20
    with pytest.raises(Unavailable, match="closed") as caught:
        await bridge.one(LOCAL, READ)
    assert caught.value.applied is False


async def test_answers_that_come_when_nobody_listens_any_more_do_no_harm(
    cassandra: Connected,
) -> None:
    """The loop of the one who asked has ended before the driver answers."""

    async def ask_and_go() -> None:
        bridge = Bridge(cassandra.session)
        with trio.CancelScope() as scope:
            scope.cancel()
            await bridge.all([LOCAL] * 5, READ)

    await trio.to_thread.run_sync(trio.run, ask_and_go)
    assert await Bridge(cassandra.session).one(LOCAL, READ) == [("local",)]
