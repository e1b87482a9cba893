"""The place where one task sleeps: no wake is lost, and none is given twice."""

from __future__ import annotations

import trio
import trio.testing

from actors.parking import Parking


async def test_a_wake_before_the_sleep_is_not_lost() -> None:
    parking = Parking()
    parking.unpark()
    parking.unpark()

    with trio.fail_after(1):
        await parking.park()
    with trio.move_on_after(0) as scope:
        await parking.park()  # two wakes before were one
    assert scope.cancelled_caught


async def test_a_sleeper_is_woken(autojump_clock: trio.testing.MockClock) -> None:
    parking = Parking()
    woken: list[float] = []

    async def sleeper() -> None:
        for _ in range(2):
            await parking.park()
            woken.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleeper)
        start = trio.current_time()
        for _ in range(2):
            await trio.sleep(1)
            parking.unpark()
            await trio.testing.wait_all_tasks_blocked()
    assert [round(when - start) for when in woken] == [1, 2]


async def test_a_cancelled_sleeper_leaves_the_place_to_the_next() -> None:
    parking = Parking()
    with trio.move_on_after(0):
        await parking.park()

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parking.park)
            await trio.testing.wait_all_tasks_blocked()
            parking.unpark()


async def test_who_is_woken_and_cancelled_at_once_ends_once() -> None:
    parking = Parking()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parking.park)
        await trio.testing.wait_all_tasks_blocked()
        parking.unpark()
        nursery.cancel_scope.cancel()
