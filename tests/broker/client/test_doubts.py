"""A keyed command whose answer was lost is in the log once, however much came meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.client import Ack, CommandError, CommandTimeout, connect
from broker.client.limits import COMMAND_ATTEMPTS, PULL_PAGE_ENTRIES, RESEND_WITHIN_ENTRIES
from broker.wire.limits import KEY_WINDOW_ENTRIES
from tests.broker.client.peer import ME, URL, Broker, Frame, Peer, connected, entry, take, told

LONG = 2_500
"""More entries than the broker knows keys of."""


@pytest.fixture
def broker() -> Broker:
    return Broker()


class Log:
    """The log of a conversation, and how a broker answers from it."""

    def __init__(self, entries: list[Frame], conv: str = "g/1") -> None:
        self.entries = entries
        self.conv = conv

    async def answer(self, peer: Peer, history: Frame) -> None:
        assert history["conv"] == self.conv
        first = history["after"]
        page = self.entries[first : first + history["limit"]]
        await peer.ok(history, entries=page, head=len(self.entries))

    async def look(self, peer: Peer, *, after: int) -> None:
        """The client looks once, from there."""
        await self.answer(peer, await peer.expect("history", after=after))

    async def looks(self, peer: Peer) -> Frame:
        """The client looks until it does something else, which is returned."""
        while True:
            command = await peer.hear()
            assert command is not None
            if command["t"] != "history":
                return command
            await self.answer(peer, command)


def log(count: int, *own: Frame, conv: str = "g/1") -> Log:
    """That many entries of others, with `own` in their places."""
    entries = [entry(seq, conv=conv) for seq in range(1, count + 1)]
    for each in own:
        entries[each["seq"] - 1] = each
    return Log(entries, conv)


def mine(seq: int, key: str, conv: str = "g/1") -> Frame:
    return entry(seq, conv=conv, sender=ME, key=key)


@asynccontextmanager
async def sending(
    broker: Broker, *conversations: Frame, to: str | int = "g/1"
) -> AsyncIterator[tuple[list[Ack], Peer]]:
    """A message with the key `k` was sent, and the connection broke: where its ack will be; the
    next connection, greeted and caught up."""
    acks: list[Ack] = []
    async with connected(broker, *conversations) as (client, peer):
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                if isinstance(to, str):
                    acks.append(await client.send(to, "hi", key="k"))
                else:
                    acks.append(await client.send(to_user=to, body="hi", key="k"))

            nursery.start_soon(send)
            await peer.expect("send", key="k")
            await peer.close()
            yield acks, await broker.accept_welcome()
        assert client._session.waiting == 0


async def test_message_that_arrived_before_a_long_outage_is_not_sent_again(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with sending(broker, told(3)) as (acks, peer):
        await log(3 + LONG, mine(4, "k")).look(peer, after=3)
        await trio.testing.wait_all_tasks_blocked()
        assert acks == [Ack("g/1", 4, 1_004)]
    assert await peer.hear() is None


async def test_message_that_did_not_arrive_is_sent_when_the_log_was_searched(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    log_ = log(3 + LONG)
    async with sending(broker, told(3)) as (acks, peer):
        began = trio.current_time()
        pages = 0
        while (command := await peer.hear()) is not None and command["t"] == "history":
            assert command["after"] == 3 + pages * PULL_PAGE_ENTRIES
            await log_.answer(peer, command)
            pages += 1
        # What was not looked at, the broker itself still knows the keys of.
        unseen = LONG - pages * PULL_PAGE_ENTRIES
        assert unseen <= RESEND_WITHIN_ENTRIES < KEY_WINDOW_ENTRIES
        assert command is not None
        assert (command["t"], command["key"]) == ("send", "k")
        assert trio.current_time() == began
        await peer.ok(command, conv="g/1", seq=LONG + 4, ts=7)
        await trio.testing.wait_all_tasks_blocked()
        assert acks == [Ack("g/1", LONG + 4, 7)]


async def test_after_a_short_outage_one_look_at_the_head_is_enough(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with sending(broker, told(3)) as (_, peer):
        await log(3 + PULL_PAGE_ENTRIES + RESEND_WITHIN_ENTRIES).look(peer, after=3)
        await peer.ok(await peer.expect("send", key="k"), conv="g/1", seq=900, ts=0)


async def test_only_ones_own_entry_with_the_key_counts(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    theirs = {**mine(5, "k"), "from": 5}
    async with sending(broker, told(3)) as (_, peer):
        again = await log(9, theirs, mine(6, "other")).looks(peer)
        await peer.ok(again, conv="g/1", seq=10, ts=0)
        assert again["key"] == "k"


async def test_direct_conversation_is_found_by_the_user_that_it_was_sent_to(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    for to, conv in ((5, f"d/5/{ME}"), (99, f"d/{ME}/99")):
        async with sending(broker, to=to) as (acks, peer):
            await log(LONG, mine(2, "k", conv), conv=conv).look(peer, after=0)
            await trio.testing.wait_all_tasks_blocked()
            assert acks == [Ack(conv, 2, 1_002)]


async def test_amendments_are_found_likewise(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker, told(3)) as (client, peer), trio.open_nursery() as nursery:
        acks: list[Ack] = []

        async def recall() -> None:
            acks.append(await client.recall("g/1", 2, key="k"))

        nursery.start_soon(recall)
        await peer.expect("recall")
        await peer.close()
        peer = await broker.accept_welcome()
        await log(LONG, {**mine(8, "k"), "kind": "recall", "ref": 2}).look(peer, after=3)
        await trio.testing.wait_all_tasks_blocked()
        assert acks == [Ack("g/1", 8, 1_008)]


async def test_some_arrived_some_did_not_and_later_ones_wait_their_turn(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker, told(3)) as (client, peer), trio.open_nursery() as nursery:
        for key in "abc":
            nursery.start_soon(partial(client.send, "g/1", key=key))
            await peer.expect("send", key=key)
        await peer.close()
        peer = await broker.accept_welcome()
        history = await peer.expect("history", after=3)
        nursery.start_soon(partial(client.send, "g/1", key="d"))
        nursery.start_soon(partial(client.send, "g/2", key="elsewhere"))
        await peer.ok(await peer.expect("send", key="elsewhere"), conv="g/2", seq=1, ts=0)
        await log(5, mine(4, "a")).answer(peer, history)
        for key in "bcd":
            await peer.ok(await peer.expect("send", key=key), conv="g/1", seq=9, ts=0)


async def test_full_buffer_does_not_stop_the_look(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker, told(0), buffer=5) as (client, peer):
        await peer.say(*map(entry, range(1, 6)))
        await trio.testing.wait_all_tasks_blocked()
        assert client._events.full
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(client.send, "g/1", key="k"))
            await peer.expect("send")
            await peer.close()
            peer = await broker.accept()
            await peer.welcome()
            again = await log(5 + LONG).looks(peer)
            await peer.ok(again, conv="g/1", seq=6 + LONG, ts=0)
        assert [event.seq for event in await take(client, 5)] == [1, 2, 3, 4, 5]


async def test_break_during_the_look_begins_it_anew(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with sending(broker, told(3)) as (acks, peer):
        await log(LONG).look(peer, after=3)
        await peer.expect("history", after=3 + PULL_PAGE_ENTRIES)
        await peer.close()
        peer = await broker.accept_welcome()
        await log(LONG, mine(4, "k")).look(peer, after=3)
        await trio.testing.wait_all_tasks_blocked()
        assert [ack.seq for ack in acks] == [4]


async def test_second_break_looks_on_from_where_the_first_look_ended(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with sending(broker, told(3)) as (acks, peer):
        await log(10).look(peer, after=3)
        await peer.expect("send", key="k")
        await peer.close()
        peer = await broker.accept_welcome()
        await log(10 + LONG, mine(11, "k")).look(peer, after=10)
        await trio.testing.wait_all_tasks_blocked()
        assert [ack.seq for ack in acks] == [11]


async def test_what_was_refused_for_now_before_the_break_is_looked_for_too(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker, told(3)) as (client, peer), trio.open_nursery() as nursery:
        nursery.start_soon(partial(client.send, "g/1", key="k"))
        send = await peer.expect("send")
        await peer.error(send, "unavailable", retry=True, after_ms=20_000)
        await trio.testing.wait_all_tasks_blocked()
        await peer.close()
        peer = await broker.accept_welcome()
        await log(LONG, mine(4, "k")).look(peer, after=3)


async def test_what_was_refused_for_now_is_looked_for_if_much_came_meanwhile(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    count = 3 + RESEND_WITHIN_ENTRIES + 1
    async with connected(broker, told(3)) as (client, peer), trio.open_nursery() as nursery:
        nursery.start_soon(partial(client.send, "g/1", key="k"))
        await peer.error(await peer.expect("send"), "unavailable", retry=True, after_ms=5_000)
        await peer.say(*(entry(seq) for seq in range(4, count + 1)))
        await log(count, mine(4, "k")).look(peer, after=3)


async def test_who_may_no_longer_read_is_told_so_by_sending(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker, told(3)) as (client, peer), trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(CommandError, match="forbidden"):
                await client.send("g/1", "hi")

        nursery.start_soon(send)
        await peer.expect("send")
        await peer.close()
        peer = await broker.accept_welcome()
        await peer.error(await peer.expect("history"), "forbidden", retry=False)
        await peer.error(await peer.expect("send"), "forbidden", retry=False)


async def test_looks_that_keep_failing_end_the_connection_not_the_client(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker) as (client, peer), trio.open_nursery() as nursery:
        for conv in ("g/1", "g/2"):
            nursery.start_soon(partial(client.send, conv, key=conv, timeout=600))
            await peer.expect("send")
        await peer.close()
        peer = await broker.accept_welcome()
        for _ in range(COMMAND_ATTEMPTS):
            refused = [await peer.expect("history") for _ in range(2)]
            error = {"t": "error", "code": "unavailable", "message": "no", "retry": True}
            await peer.say(*({**error, "id": history["id"]} for history in refused))
        assert await peer.hear() is None
        peer = await broker.accept_welcome()
        for _ in range(2):
            history = await peer.expect("history")
            own = mine(1, history["conv"], history["conv"])
            await peer.ok(history, entries=[own], head=1)


async def test_look_ends_when_nobody_waits_any_more(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker, told(3)) as (client, peer), trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(CommandTimeout):
                await client.send("g/1", "hi", key="k", timeout=5)

        nursery.start_soon(send)
        await peer.expect("send")
        await peer.close()
        peer = await broker.accept_welcome()
        history = await peer.expect("history")
        await trio.sleep(6)
        await log(LONG).answer(peer, history)
        nursery.start_soon(client.read, "g/1", 3)
        await peer.ok(await peer.expect("read"), unread=0)


@settings(max_examples=60)
@given(
    arrived=st.sets(st.integers(0, 5)),
    before=st.integers(0, 1_500),
    after=st.integers(0, 1_500),
)
def test_every_message_is_there_once_and_acknowledged_with_its_seq(
    arrived: set[int], before: int, after: int
) -> None:
    """A broker that knows as few keys as it may: none but those of the newest entries."""

    async def main() -> None:
        broker = Broker()
        entries = [entry(seq) for seq in range(1, 4)]
        acks: dict[str, int] = {}

        def append(**fields: object) -> int:
            entries.append(entry(len(entries) + 1, **fields))  # type: ignore[arg-type]
            return len(entries)

        async def send(key: str) -> None:
            acks[key] = (await client.send("g/1", key, key=key)).seq

        async with connected(broker, told(3)) as (client, peer), trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(send, str(number))
                await peer.expect("send", key=str(number))
            for _ in range(before):
                append()
            for number in sorted(arrived):
                append(sender=ME, key=str(number))
            for _ in range(after):
                append()
            await peer.close()
            peer = await broker.accept_welcome()
            while True:
                await trio.testing.wait_all_tasks_blocked()
                if len(acks) == 6:
                    break
                command = await peer.hear()
                assert command is not None
                if command["t"] == "history":
                    await Log(entries).answer(peer, command)
                    continue
                known = {each.get("key"): each["seq"] for each in entries[-KEY_WINDOW_ENTRIES:]}
                key = command["key"]
                seq = known.get(key) or append(sender=ME, key=key)
                await peer.ok(command, conv="g/1", seq=seq, ts=0)
        own = [each for each in entries if each["from"] == ME]
        assert len(own) == 6
        assert acks == {each["key"]: each["seq"] for each in own}

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_client_that_ends_with_a_doubt_leaves_nothing(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async def script() -> None:
        peer = await broker.accept_welcome()
        await peer.expect("send")
        await peer.close()
        peer = await broker.accept_welcome()
        await peer.expect("history")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        async with connect(URL, token="t", open_stream=broker.open_stream) as client:
            with pytest.raises(CommandTimeout):
                await client.send("g/1", "hi", timeout=30)
        assert client._session.waiting == 0
