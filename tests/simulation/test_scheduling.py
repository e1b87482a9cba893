"""The simulation's hold on trio: the same seed is the same run, and a process can stand still."""

from __future__ import annotations

import random

import trio

from tests.simulation.scheduling import Outside, Process, current_process, run_repeatably


async def _race() -> list[int]:
    order: list[int] = []

    async def runner(number: int) -> None:
        for _ in range(5):
            await trio.sleep(random.choice([0.0, 0.1]))
            order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(runner, number)
    return order


def test_the_same_seed_is_the_same_run() -> None:
    runs = [run_repeatably(seed, _race) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_a_stopped_process_takes_no_step_and_finds_the_clock_moved_on() -> None:
    async def story() -> list[tuple[str, float]]:
        seen: list[tuple[str, float]] = []
        word = trio.Event()

        async def ticking() -> None:
            with trio.move_on_after(2.5):
                while True:
                    await trio.sleep(1)
                    seen.append(("tick", trio.current_time() - start))
            seen.append(("over", trio.current_time() - start))

        async def listening() -> None:
            await word.wait()
            seen.append(("word", trio.current_time() - start))

        async def both() -> None:
            async with trio.open_nursery() as inner:
                inner.start_soon(ticking)
                inner.start_soon(listening)

        process = Process("p")
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            process.start(nursery, both)
            await trio.sleep(1.2)
            process.stop()
            word.set()
            await trio.sleep(10)
            assert seen == [("tick", 1.0)]
            process.go_on()
        return sorted(seen)

    told = run_repeatably(1, story)
    assert [(what, round(when, 1)) for what, when in told] == [
        ("over", 11.2),
        ("tick", 1.0),
        ("word", 11.2),
    ]


def test_what_is_started_outside_is_no_part_of_the_process() -> None:
    async def story() -> list[Process | None]:
        seen: list[Process | None] = []

        async def note() -> None:
            seen.append(current_process())

        async with trio.open_nursery() as nursery:
            outside = Outside(nursery)

            async def within() -> None:
                await note()
                outside.start(note)

            process = Process("p")
            process.start(nursery, within)
        assert seen[0] is process
        return seen

    assert run_repeatably(1, story)[1] is None
