"""The sending thread: what gathers goes together, nobody waits for ever, nothing is sent twice."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from time import monotonic
from typing import Any, cast
from unittest.mock import patch

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from storage.errors import Unavailable
from storage.redis.link import Answer, Command
from storage.redis.pipeline import Pipeline, ScriptMissing
from tests.helpers.servers import Redis
from tests.storage.redis.helpers import Door, ask, hold_up_the_loop, open_pipeline, until


async def alive(pipeline: Pipeline) -> bool:
    return await pipeline.run([(b"PING",)]) == [b"PONG"]


async def test_what_gathers_while_answers_are_out_goes_as_one(server: Redis) -> None:
    door = Door()
    got: dict[int, list[Answer]] = {}

    async def count(pipeline: Pipeline, number: int) -> None:
        got[number] = await pipeline.run([(b"ECHO", b"%d" % number), (b"INCR", b"n")])

    async with open_pipeline(server.url, door) as pipeline, trio.open_nursery() as nursery:
        nursery.start_soon(alive, pipeline)
        await door.reached()
        for number in range(50):
            nursery.start_soon(count, pipeline, number)
        await wait_all_tasks_blocked()
        assert pipeline.statistics().waiting_commands == 101
        door.open()
    assert {number: answers[0] for number, answers in got.items()} == {
        number: b"%d" % number for number in range(50)
    }
    assert sorted(answers[1] for answers in got.values()) == list(range(1, 51))
    statistics = pipeline.statistics()
    assert (statistics.pipelines, statistics.commands, statistics.waiting_commands) == (2, 101, 0)


async def test_answers_that_come_while_the_loop_is_busy_wake_it_once(server: Redis) -> None:
    door = Door()
    got: list[Answer] = []
    done = wakes = 0
    hand_back, wake = Pipeline._hand_back, Pipeline._wake

    def count_done(pipeline: Pipeline, calls: list[Any]) -> None:
        nonlocal done
        hand_back(pipeline, calls)
        done += len(calls)

    def count_wakes(pipeline: Pipeline) -> None:
        nonlocal wakes
        wakes += 1
        wake(pipeline)

    async def echo(pipeline: Pipeline, number: int) -> None:
        got.extend(await pipeline.run([(b"ECHO", b"%d" % number)]))

    with (
        patch("storage.redis.pipeline.PIPELINE_MAX_COMMANDS", 10),
        patch.object(Pipeline, "_hand_back", count_done),
        patch.object(Pipeline, "_wake", count_wakes),
    ):
        async with open_pipeline(server.url, door) as pipeline:
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(echo, pipeline, number)
                await wait_all_tasks_blocked()
                door.open()
                hold_up_the_loop(lambda: done == 100)
            assert pipeline.statistics().pipelines >= 10
            assert wakes == 1
            assert sorted(map(int, got)) == list(range(100))
            await alive(pipeline)
            assert wakes == 2, "one that waits is woken"


async def test_a_pipeline_has_an_end(server: Redis) -> None:
    door = Door()
    with (
        patch("storage.redis.pipeline.PIPELINE_MAX_COMMANDS", 10),
        patch("storage.redis.pipeline.PIPELINE_MAX_BYTES", 100),
    ):
        async with open_pipeline(server.url, door) as pipeline:
            assert pipeline.post((b"PING",), 0)
            await door.reached()
            for _ in range(25):
                assert pipeline.post((b"INCR", b"n"), 0)
            for _ in range(3):
                assert pipeline.post((b"APPEND", b"s", b"x" * 60), 60)
    assert ask(server.url, "GET", "n") == b"25"
    assert ask(server.url, "STRLEN", "s") == 180
    assert pipeline.statistics().pipelines == 1 + 2 + 3


async def test_a_full_queue_refuses_and_recovers(server: Redis) -> None:
    door = Door()
    with (
        patch("storage.redis.pipeline.WAITING_MAX_COMMANDS", 5),
        patch("storage.redis.pipeline.WAITING_MAX_BYTES", 1000),
    ):
        async with open_pipeline(server.url, door) as pipeline:
            assert not pipeline.post((b"PING",), 1001)
            for _ in range(5):
                assert pipeline.post((b"INCR", b"n"), 200)
            assert not pipeline.post((b"INCR", b"n"), 0)
            with pytest.raises(Unavailable, match="5 commands wait") as full:
                await pipeline.run([(b"INCR", b"n")])
            assert full.value.applied is False
            door.open()
            await until(lambda: alive(pipeline))
            assert await pipeline.run([(b"GET", b"n")]) == [b"5"]
            statistics = pipeline.statistics()
            assert (statistics.waiting_commands, statistics.waiting_bytes) == (0, 0)
            assert statistics.refused >= 3


async def test_beats_do_not_count(server: Redis) -> None:
    door = Door()
    door.open()
    with patch("storage.redis.pipeline.WAITING_MAX_COMMANDS", 5):
        async with open_pipeline(server.url, door) as pipeline:
            for _ in range(20):
                pipeline.beat((b"INCR", b"beats"))
            assert await pipeline.run([(b"GET", b"beats")]) == [b"20"]
            door.shut()
            accepted = [pipeline.post((b"INCR", b"n"), 0) for _ in range(20)]
            assert accepted.count(True) == 5


async def test_who_gives_up_takes_nothing_from_the_others(server: Redis) -> None:
    door = Door()
    got: list[Answer] = []

    async def echo(pipeline: Pipeline, word: bytes) -> None:
        got.extend(await pipeline.run([(b"ECHO", word)]))

    async with open_pipeline(server.url, door) as pipeline, trio.open_nursery() as nursery:
        nursery.start_soon(echo, pipeline, b"first")
        await door.reached()
        async with trio.open_nursery() as hasty:
            for _ in range(20):
                hasty.start_soon(pipeline.run, [(b"INCR", b"given up")])
            nursery.start_soon(echo, pipeline, b"second")
            await wait_all_tasks_blocked()
            hasty.cancel_scope.cancel()
        nursery.start_soon(echo, pipeline, b"third")
        await wait_all_tasks_blocked()
        door.open()
    assert sorted(got) == [b"first", b"second", b"third"]
    assert ask(server.url, "GET", "given up") is None, "it was not yet sent, so it never was"
    assert pipeline.statistics().waiting_commands == 0


async def test_who_gives_up_while_the_answer_is_out_is_only_forgotten(server: Redis) -> None:
    door = Door()
    async with open_pipeline(server.url, door) as pipeline:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipeline.run, [(b"INCR", b"n")])
            await door.reached()
            nursery.cancel_scope.cancel()
        door.open()
        assert await pipeline.run([(b"GET", b"n")]) == [b"1"]
        with trio.CancelScope() as late:
            late.cancel()
            await pipeline.run([(b"INCR", b"n")])
        assert await pipeline.run([(b"GET", b"n")]) == [b"1"]


async def test_what_the_server_refuses_harms_none_beside_it(server: Redis) -> None:
    async with open_pipeline(server.url) as pipeline:
        await pipeline.run([(b"SET", b"k", b"v")])
        with pytest.raises(Unavailable, match="WRONGTYPE") as refused:
            await pipeline.run([(b"LPUSH", b"k", b"x")])
        assert refused.value.applied is False
        with pytest.raises(Unavailable, match="WRONGTYPE") as doubtful:
            await pipeline.run([(b"INCR", b"n"), (b"LPUSH", b"k", b"x")])
        assert doubtful.value.applied is None
        with pytest.raises(ScriptMissing):
            await pipeline.run([(b"EVALSHA", b"0" * 40, b"0")])
        assert await pipeline.run([(b"GET", b"k"), (b"GET", b"n")]) == [b"v", b"1"]
        assert pipeline.interruptions == 0


async def test_a_server_comes_and_goes(server: Redis) -> None:
    async with open_pipeline(server.url) as pipeline:
        assert await alive(pipeline)
        server.kill()
        with pytest.raises(Unavailable):
            await pipeline.run([(b"PING",)])
        assert not pipeline.statistics().connected
        assert not pipeline.post((b"INCR", b"n"), 0)
        with pytest.raises(Unavailable, match="away") as away:
            await pipeline.run([(b"PING",)])
        assert away.value.applied is False
        server.start()
        await until(lambda: alive(pipeline))
        assert pipeline.statistics().connected
        assert pipeline.interruptions == 1


@pytest.mark.usefixtures("impatient")
async def test_no_call_waits_for_a_server_that_hangs(server: Redis) -> None:
    async with open_pipeline(server.url) as pipeline:
        server.signal(signal.SIGSTOP)
        errors: list[Unavailable] = []

        async def ping() -> None:
            with pytest.raises(Unavailable) as hung:
                await pipeline.run([(b"PING",)])
            errors.append(hung.value)

        with trio.fail_after(3):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(ping)
        assert len({id(error) for error in errors}) == 10
        started = monotonic()
        while pipeline.post((b"INCR", b"n"), 0):
            await trio.lowlevel.checkpoint()
        assert monotonic() - started < 1
        server.signal(signal.SIGCONT)
        await until(lambda: alive(pipeline))


@pytest.mark.usefixtures("impatient")
async def test_closing_does_not_wait_for_a_server_that_hangs(server: Redis) -> None:
    started = monotonic()
    async with open_pipeline(server.url) as pipeline:
        server.signal(signal.SIGSTOP)
        for _ in range(2000):
            pipeline.post((b"INCR", b"n"), 0)
    assert monotonic() - started < 3
    with pytest.raises(Unavailable):
        await pipeline.run([(b"PING",)])
    assert pipeline.statistics().lost == 2000


async def test_what_was_accepted_is_sent_before_the_end(server: Redis) -> None:
    async with open_pipeline(server.url) as pipeline:
        for _ in range(3000):
            assert pipeline.post((b"INCR", b"n"), 0)
    assert ask(server.url, "GET", "n") == b"3000"


async def test_a_defect_ends_neither_the_thread_nor_the_wait(
    server: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pipeline(server.url) as pipeline:
        no_command = cast(Sequence[Command], [(cast(Any, object()),)])
        with pytest.raises(Unavailable, match="defect"):
            await pipeline.run(no_command)
        assert "a defect" in caplog.text
        await until(lambda: alive(pipeline))
