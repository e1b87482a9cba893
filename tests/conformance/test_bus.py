"""What a bus must do: messages of one sender arrive unaltered and in order, each at its inbox."""

from __future__ import annotations

import trio

from storage.shared import Bus
from tests.conformance.shared_backends import BusOpener

WAIT_S = 20


async def receive(bus: Bus, count: int) -> list[bytes]:
    """The next messages, as many; fails if more come with them."""
    got: list[bytes] = []
    with trio.fail_after(WAIT_S):
        while len(got) < count:
            batch = await bus.receive()
            assert batch
            got += batch
    assert len(got) == count
    return got


async def test_a_message_arrives_at_the_inbox_it_was_sent_to(open_bus: BusOpener) -> None:
    a, b, c = await open_bus("a"), await open_bus("b"), await open_bus("c")
    assert a.send("b", b"to b")
    assert a.send("c", b"to c")
    assert a.send("a", b"to myself")
    assert await receive(b, 1) == [b"to b"]
    assert await receive(c, 1) == [b"to c"]
    assert await receive(a, 1) == [b"to myself"]
    assert b.send("a", b"back")
    assert await receive(a, 1) == [b"back"]


async def test_what_is_sent_to_nobody_harms_nobody(open_bus: BusOpener) -> None:
    a = await open_bus("a")
    a.send("nobody", b"lost")
    assert a.send("a", b"kept")
    assert await receive(a, 1) == [b"kept"]


async def test_any_bytes_arrive_as_they_are(open_bus: BusOpener) -> None:
    a, b = await open_bus("a"), await open_bus("b")
    messages = [b"", b"\r\n$3\r\nabc\r\n", bytes(range(256)), b"*", b"\0" * 3_000_000, b"end"]
    for message in messages:
        assert a.send("b", message)
    assert await receive(b, len(messages)) == messages


async def test_messages_of_one_sender_stay_in_order(open_bus: BusOpener) -> None:
    ends = {name: await open_bus(name) for name in ("a", "b", "c")}
    for number in range(2_000):
        for name in ("a", "b"):
            assert ends[name].send("c", b"%s %d" % (name.encode(), number))
        if number % 100 == 0:
            await trio.lowlevel.checkpoint()
    got = [message.split() for message in await receive(ends["c"], 4_000)]
    for name in (b"a", b"b"):
        assert [int(number) for sender, number in got if sender == name] == list(range(2_000))


async def test_a_receiver_that_gave_up_has_lost_nothing(open_bus: BusOpener) -> None:
    a, b = await open_bus("a"), await open_bus("b")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(b.receive)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    for number in range(50):
        assert a.send("b", b"%d" % number)
        with trio.CancelScope() as scope:
            scope.cancel()
            await b.receive()
    assert await receive(b, 50) == [b"%d" % number for number in range(50)]
