"""The bus over a Redis that comes and goes: what is sent meanwhile is lost, what comes is right."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from unittest.mock import patch

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from storage.redis import RedisShared, open_redis
from storage.redis.bus import MESSAGE_MAX_BYTES, RedisBus
from tests.helpers.servers import Redis
from tests.storage.redis.helpers import PATIENCE_S, ask, hold_up_the_loop, until


@asynccontextmanager
async def two_nodes(server: Redis) -> AsyncIterator[tuple[RedisShared, RedisShared]]:
    async with open_redis(server.url, inbox="a") as a, open_redis(server.url, inbox="b") as b:
        yield a, b


async def heard(bus: RedisBus, count: int) -> list[bytes]:
    got: list[bytes] = []
    with trio.fail_after(PATIENCE_S):
        while len(got) < count:
            got += await bus.receive()
    return got


async def carries(a: RedisBus, b: RedisBus) -> None:
    """Send until something arrives; takes it all out."""

    async def arrived() -> bool:
        a.send("b", b"are you there?")
        with trio.move_on_after(0.05):
            return bool(await b.receive())
        return False

    await until(arrived)
    with trio.move_on_after(0.2):
        while True:
            await b.receive()


async def test_after_a_restart_it_carries_again_and_raised_nothing(server: Redis) -> None:
    async with two_nodes(server) as (a, b):
        assert a.bus.send("b", b"before")
        assert await heard(b.bus, 1) == [b"before"]
        server.kill()
        for _ in range(100):
            a.bus.send("b", b"lost")
        await until_away(a)
        assert not a.bus.send("b", b"certainly lost")
        server.start()
        await carries(a.bus, b.bus)
        assert a.bus.send("b", b"after")
        assert await heard(b.bus, 1) == [b"after"]
        assert b.bus.statistics().interruptions == 1
        assert b.bus.statistics().listening


async def until_away(shared: RedisShared) -> None:
    async def away() -> bool:
        shared.bus.send("b", b"?")
        return not shared.statistics().connected

    await until(away)


async def test_a_listener_that_was_cut_off_listens_again(server: Redis) -> None:
    async with two_nodes(server) as (a, b):
        ask(server.url, "CLIENT", "KILL", "TYPE", "pubsub")
        await carries(a.bus, b.bus)
        assert a.statistics().interruptions == 0, "those who send were not cut off"
        assert b.bus.statistics().interruptions == 1


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_hangs_delays_nobody_and_nothing_comes_late(server: Redis) -> None:
    async with two_nodes(server) as (a, b):
        for number in range(10):
            a.bus.send("b", b"%d" % number)
        got = [int(word) for word in await heard(b.bus, 10)]
        server.signal(signal.SIGSTOP)
        started, number = monotonic(), 10
        while a.statistics().connected or b.bus.statistics().interruptions == 0:
            a.bus.send("b", b"%d" % number)
            number += 1
            await trio.sleep(0.01)
            assert monotonic() - started < 5
        # Now it wakes up, with the words of the connections that were given up in its ears.
        server.signal(signal.SIGCONT)
        last, deadline = number, monotonic() + PATIENCE_S
        while not got or got[-1] < last:
            assert monotonic() < deadline
            a.bus.send("b", b"%d" % number)
            number += 1
            with trio.move_on_after(0.02):
                got += [int(word) for word in await b.bus.receive()]
    assert got == sorted(set(got))


@pytest.mark.usefixtures("impatient")
async def test_a_quiet_bus_is_no_broken_one(server: Redis) -> None:
    async with two_nodes(server) as (a, b):
        await trio.sleep(1.2)
        assert a.bus.send("b", b"hello")
        assert await heard(b.bus, 1) == [b"hello"]
        assert b.bus.statistics().interruptions == 0


async def test_what_comes_late_or_twice_is_left_out(server: Redis) -> None:
    channel = b"parley:bus:{b}"

    def message(sender: bytes, number: int, data: bytes) -> bytes:
        return sender * 8 + number.to_bytes(8, "big") + data

    async with open_redis(server.url, inbox="b") as b:
        for sent in (
            message(b"x", 1, b"one"),
            message(b"x", 300, b"two"),
            message(b"x", 300, b"twice"),
            message(b"x", 2, b"late"),
            b"no message",
            message(b"y", 2, b"another sender's"),
            message(b"x", 301, b"three"),
        ):
            assert ask(server.url, "PUBLISH", channel, sent) == 1
        assert await heard(b.bus, 4) == [b"one", b"two", b"another sender's", b"three"]
        assert b.bus.statistics().late == 3


async def test_senders_are_remembered_within_bounds(server: Redis) -> None:
    with patch("storage.redis.bus.SENDERS_MAX", 3):
        async with open_redis(server.url, inbox="b") as b:
            for sender in range(10):
                sent = bytes([sender]) * 8 + bytes(7) + b"\1" + b"%d" % sender
                ask(server.url, "PUBLISH", "parley:bus:{b}", sent)
            assert await heard(b.bus, 10) == [b"%d" % sender for sender in range(10)]


async def test_an_inbox_that_nobody_empties_has_an_end(server: Redis) -> None:
    with patch("storage.redis.bus.INBOX_MAX_BYTES", 1000):
        async with two_nodes(server) as (a, b):
            for number in range(50):
                assert a.bus.send("b", b"%03d" % number + bytes(97))

            async def all_came() -> bool:
                statistics = b.bus.statistics()
                return statistics.received + statistics.dropped == 50

            await until(all_came)
            statistics = b.bus.statistics()
            assert 0 < statistics.received <= 10
            assert statistics.waiting_bytes <= 1000
            assert statistics.interruptions > 0, "whoever looks knows that something was lost"
            numbers = [int(word[:3]) for word in await heard(b.bus, statistics.received)]
            assert numbers == sorted(set(numbers))
            assert a.bus.send("b", b"there is room again")
            assert await heard(b.bus, 1) == [b"there is room again"]


async def test_what_comes_while_the_loop_is_busy_wakes_it_once(server: Redis) -> None:
    """However many reads brought it: a wake-up of the loop costs more than a message."""
    taken_in = wakes = 0
    hand_over, arrived = RedisBus._hand_over, RedisBus._arrived

    def count_reads(bus: RedisBus, messages: list[bytes]) -> None:
        nonlocal taken_in
        hand_over(bus, messages)
        taken_in += 1

    def count_wakes(bus: RedisBus) -> None:
        nonlocal wakes
        wakes += 1
        arrived(bus)

    async with open_redis(server.url, inbox="b") as b:
        with (
            patch.object(RedisBus, "_hand_over", count_reads),
            patch.object(RedisBus, "_arrived", count_wakes),
        ):
            for number in range(1, 21):
                sent = b"x" * 8 + number.to_bytes(8, "big") + b"%d" % number
                ask(server.url, "PUBLISH", "parley:bus:{b}", sent)
                hold_up_the_loop(lambda: taken_in == number)  # noqa: B023 - called at once
            # One batch, for whoever wakes up.
            assert await b.bus.receive() == [b"%d" % number for number in range(1, 21)]
            await wait_all_tasks_blocked()
            assert wakes == 1
            async with trio.open_nursery() as nursery:
                nursery.start_soon(heard, b.bus, 1)
                await wait_all_tasks_blocked()
                ask(server.url, "PUBLISH", "parley:bus:{b}", b"x" * 8 + b"\1" + bytes(7) + b"last")
            assert wakes == 2, "one that waits is woken"


async def test_a_message_that_is_too_large_is_not_sent(server: Redis) -> None:
    async with two_nodes(server) as (a, b):
        assert not a.bus.send("b", bytes(MESSAGE_MAX_BYTES + 1))
        assert a.bus.send("b", bytes(MESSAGE_MAX_BYTES))
        assert [len(data) for data in await heard(b.bus, 1)] == [MESSAGE_MAX_BYTES]


async def test_another_prefix_is_another_bus(server: Redis) -> None:
    async with (
        open_redis(server.url, inbox="a", prefix="one") as a,
        open_redis(server.url, inbox="b", prefix="two") as b,
        open_redis(server.url, inbox="b", prefix="one") as same,
    ):
        assert a.bus.send("b", b"hello")
        assert await heard(same.bus, 1) == [b"hello"]
        assert b.bus.statistics().received == 0


async def test_what_no_bus_sends_interrupts_but_does_not_end_it(server: Redis) -> None:
    async with two_nodes(server) as (a, b):
        with patch.object(RedisBus, "_take_in", side_effect=ZeroDivisionError):

            async def interrupted() -> bool:
                a.bus.send("b", b"stumble")
                await trio.lowlevel.checkpoint()
                return b.bus.statistics().interruptions > 0

            await until(interrupted)
        await carries(a.bus, b.bus)
