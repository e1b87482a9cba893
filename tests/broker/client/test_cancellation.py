"""Cancelled at any point, the client leaves nothing behind: no task, no call, no open stream."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.client import connect
from tests.broker.client.peer import URL, Broker, Peer, connected, entry, told


class CountingBroker(Broker):
    """Answers by itself, and cancels the client's scope after so many schedulings."""

    def __init__(self) -> None:
        super().__init__()
        self.streams: list[trio.testing.MemorySendStream | trio.abc.Stream] = []

    async def open_stream(self, *where: object) -> trio.abc.Stream:
        stream = await super().open_stream(*where)  # type: ignore[arg-type]
        self.streams.append(stream)
        return stream


class CancelAfter(trio.abc.Instrument):
    """Cancels a scope when its tasks have been scheduled so many times."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self.scope = scope
        self.steps = steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps -= 1
        if self.steps == 0:
            self.scope.cancel()


async def script(broker: Broker) -> None:
    """A lively broker: entries, a gap, an answer, a break, and the same once more."""
    while True:
        peer = await broker.accept()
        try:
            await _converse(peer)
        except (AssertionError, trio.BrokenResourceError):
            continue  # the client was cancelled under it


async def _converse(peer: Peer) -> None:
    await peer.welcome()
    await peer.synced(told(3))
    await peer.say(entry(4), entry(7))
    for _ in range(2):
        command = await peer.hear()
        if command is None:
            return
        await peer.ok(command, entries=[entry(5), entry(6)], head=7, conv="g/1", seq=8, ts=0)
    await peer.close()


def schedulings() -> st.SearchStrategy[int]:
    return st.integers(1, 120)


@settings(max_examples=120)
@given(steps=schedulings())
def test_cancelled_anywhere_nothing_is_left(steps: int) -> None:
    async def main() -> None:
        broker = CountingBroker()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(script, broker)
            await trio.testing.wait_all_tasks_blocked()
            tasks = len(nursery.child_tasks)
            with trio.CancelScope() as scope:
                instrument = CancelAfter(scope, steps)
                trio.lowlevel.add_instrument(instrument)
                try:
                    async with connect(URL, token="t", open_stream=broker.open_stream) as client:
                        await client.send("g/1", "hi")
                        async for _ in client:
                            pass
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            assert scope.cancelled_caught
            assert len(nursery.child_tasks) == tasks
            for stream in broker.streams:
                with pytest.raises(trio.ClosedResourceError):
                    await stream.send_all(b"x")
            nursery.cancel_scope.cancel()

    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(main, clock=clock)


async def test_cancelled_command_is_forgotten_and_its_answer_ignored() -> None:
    async with connected(Broker()) as (client, peer):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.join, "g/1")
                command = await peer.expect("group.join")
                scope.cancel()
        assert client._session.waiting == 0
        await peer.ok(command)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.read, "g/1", 3)
            await peer.ok(await peer.expect("read"), unread=0)


async def test_command_cancelled_before_it_was_written_is_never_sent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    broker = Broker()
    async with connected(broker) as (client, peer):
        await peer.close()
        with trio.move_on_after(0.0001):
            await client.join("g/1")
        peer = await broker.accept_welcome()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.read, "g/1", 3)
            await peer.ok(await peer.expect("read"), unread=0)
