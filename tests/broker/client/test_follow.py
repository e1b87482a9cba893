"""What an application sees: each entry once, in order, through breaks, gaps and a slow reader."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from broker.client import Message, OtherEvent, ReadMark, Typing, connect
from broker.client.limits import PULL_PAGE_ENTRIES
from tests.broker.client.peer import ME, URL, Broker, Frame, Peer, connected, entry, take, told


@pytest.fixture
def broker() -> Broker:
    return Broker()


def seqs(events: list[Any]) -> list[int]:
    return [event.seq for event in events]


async def answer_history(peer: Peer, after: int, head: int, conv: str = "g/1") -> None:
    """Answer a pull as a broker does whose log ends at `head`."""
    history = await peer.expect("history", conv=conv, after=after)
    last = min(after + history["limit"], head)
    entries = [entry(seq, conv=conv) for seq in range(after + 1, last + 1)]
    await peer.ok(history, entries=entries, head=head)


# Where it begins


async def test_fresh_client_begins_now(broker: Broker) -> None:
    async with connected(broker, told(7, *map(entry, range(1, 8)))) as (client, peer):
        await peer.say(entry(8))
        assert seqs(await take(client, 1)) == [8]
        assert client.cursors == {"g/1": 8}


async def test_from_start_gives_all_that_there_is(broker: Broker) -> None:
    async with connected(broker, told(3, entry(1), entry(2), more=True), from_start=True) as (
        client,
        peer,
    ):
        await answer_history(peer, after=2, head=3)
        assert seqs(await take(client, 3)) == [1, 2, 3]


async def test_given_cursors_continue(broker: Broker) -> None:
    async with connected(broker, told(5, entry(4), entry(5)), cursors={"g/1": 3, "g/2": 9}) as (
        client,
        peer,
    ):
        await peer.say(entry(10, conv="g/2"))
        events = await take(client, 3)
        assert seqs(events) == [4, 5, 10]


async def test_sync_pages_name_the_same_cursors(broker: Broker) -> None:
    async def script() -> None:
        peer = await broker.accept()
        await peer.welcome()
        first = await peer.expect("sync", cursors={"g/1": 3})
        await peer.ok(first, conversations=[told(4, entry(4))], next="page2")
        second = await peer.expect("sync", cursors={"g/1": 3}, next="page2")
        await peer.ok(second, conversations=[told(1, entry(1, conv="g/2"), conv="g/2")])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        async with connect(
            URL, token="t", cursors={"g/1": 3}, open_stream=broker.open_stream
        ) as client:
            events = await take(client, 2)
            assert [(event.conv, event.seq) for event in events] == [("g/1", 4), ("g/2", 1)]


async def test_more_cursors_than_one_command_holds(broker: Broker) -> None:
    async def script() -> None:
        peer = await broker.accept()
        await peer.welcome()
        await peer.error(await peer.expect("sync", cursors={"g/1": 3}), "too_large", retry=False)
        heads = await peer.expect("sync", cursors={}, entries=0)
        entries = [entry(seq) for seq in (1, 2, 3, 4)]
        await peer.ok(heads, conversations=[told(4, *entries)])
        await answer_history(peer, after=3, head=4)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        async with connect(
            URL, token="t", cursors={"g/1": 3}, open_stream=broker.open_stream
        ) as client:
            assert seqs(await take(client, 1)) == [4]


async def test_entries_that_come_before_the_sync_wait_for_it(broker: Broker) -> None:
    async def script() -> None:
        peer = await broker.accept()
        hello = await peer.expect("hello")
        ok = {"t": "ok", "id": hello["id"], "user": ME}
        await peer.say(ok, entry(6), entry(2, conv="g/2"))
        await peer.synced(told(5, entry(4), entry(5)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        async with connect(
            URL, token="t", cursors={"g/1": 3}, open_stream=broker.open_stream
        ) as client:
            events = await take(client, 4)
            assert [(event.conv, event.seq) for event in events] == [
                *(("g/1", seq) for seq in (4, 5, 6)),
                ("g/2", 2),
            ]


async def test_conversation_joined_while_connected_begins_at_its_first_entry(
    broker: Broker,
) -> None:
    async with connected(broker) as (client, peer):
        await peer.say(entry(41), entry(42))
        assert seqs(await take(client, 2)) == [41, 42]


async def test_conversation_joined_while_away_begins_where_one_became_a_member(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker, told(1)) as (client, peer):
        await peer.close()
        peer = await broker.accept()
        await peer.welcome()
        joined = told(9, *(entry(seq, conv="g/2") for seq in range(1, 10)), conv="g/2", since=8)
        await peer.synced(joined, expect={"g/1": 1})
        assert seqs((await take(client, 4))[2:]) == [8, 9]


async def test_who_leaves_and_joins_again_sees_nothing_of_the_time_between(
    broker: Broker,
) -> None:
    def system(seq: int, event: str) -> Frame:
        return entry(seq, {"event": event, "users": [ME], "by": ME}, kind="system")

    async with connected(broker, told(3)) as (client, peer):
        await peer.say(system(4, "left"), system(20, "joined"), entry(21))
        assert seqs(await take(client, 3)) == [4, 20, 21]


# Gaps


async def test_repetitions_are_dropped(broker: Broker) -> None:
    async with connected(broker, told(3)) as (client, peer):
        await peer.say(entry(4), entry(3), entry(4), entry(5))
        assert seqs(await take(client, 2)) == [4, 5]


async def test_gap_is_pulled_and_what_came_after_it_waits(broker: Broker) -> None:
    async with connected(broker, told(3)) as (client, peer):
        await peer.say(entry(7), entry(8))
        history = await peer.expect("history", after=3)
        await peer.say(entry(9))
        await peer.ok(history, entries=[entry(4), entry(5), entry(6), entry(7)], head=7)
        assert seqs(await take(client, 6)) == [4, 5, 6, 7, 8, 9]


async def test_behind_is_pulled_page_by_page_until_live_again(broker: Broker) -> None:
    head = 10 + 2 * PULL_PAGE_ENTRIES + 5
    async with connected(broker, told(10)) as (client, peer):
        await peer.say({"t": "behind", "conv": "g/1", "head": head - 5})
        await answer_history(peer, after=10, head=head - 5)
        await answer_history(peer, after=10 + PULL_PAGE_ENTRIES, head=head)
        await answer_history(peer, after=10 + 2 * PULL_PAGE_ENTRIES, head=head)
        await peer.say(entry(head + 1))
        assert seqs(await take(client, head + 1 - 10)) == list(range(11, head + 2))


async def test_behind_with_nothing_missing_still_asks(broker: Broker) -> None:
    async with connected(broker, told(10)) as (client, peer):
        await peer.say(entry(11), {"t": "behind", "conv": "g/1", "head": 11})
        await answer_history(peer, after=11, head=11)
        await peer.say(entry(12))
        assert seqs(await take(client, 2)) == [11, 12]


async def test_what_may_not_be_read_is_passed_over(broker: Broker) -> None:
    async with connected(broker, told(3), told(3, conv="g/2")) as (client, peer):
        await peer.say({"t": "behind", "conv": "g/1", "head": 5})
        await peer.error(await peer.expect("history", conv="g/1"), "forbidden", retry=False)
        await peer.say({"t": "behind", "conv": "g/2", "head": 9})
        history = await peer.expect("history", conv="g/2", after=3)
        await peer.ok(history, entries=[entry(9, conv="g/2")], head=9)
        await peer.say(entry(6), entry(10, conv="g/2"))
        assert seqs(await take(client, 3)) == [9, 6, 10]


async def test_pull_broken_off_is_made_good_by_the_next_sync(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker, told(3)) as (client, peer):
        await peer.say(entry(6))
        await peer.expect("history", after=3)
        await peer.close()
        peer = await broker.accept()
        await peer.welcome()
        await peer.synced(told(7, entry(4), entry(5), more=True), expect={"g/1": 3})
        # 6 was held all the while, so that only 7 is missing.
        await answer_history(peer, after=6, head=7)
        events = [event for event in await take(client, 6) if isinstance(event, Message)]
        assert seqs(events) == [4, 5, 6, 7]


# A slow application


async def test_slow_application_stops_the_reading(broker: Broker) -> None:
    async with connected(broker, told(0), buffer=10) as (client, peer):
        for seq in range(1, 31):
            await peer.say(entry(seq))
            await trio.testing.wait_all_tasks_blocked()
        unread = client._events  # how many the client holds is the point of this test
        assert unread.full
        assert len(unread._events) == 10
        assert seqs(await take(client, 30)) == list(range(1, 31))


async def test_command_is_answered_while_events_wait_and_nothing_is_lost(broker: Broker) -> None:
    async with connected(broker, told(0), buffer=10) as (client, peer):
        await peer.say(*map(entry, range(1, 11)))
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, "g/1", "from the middle of the loop")
            send = await peer.expect("send")
            await peer.say(entry(11), entry(12), {"t": "typing", "conv": "g/1", "user": 5})
            await peer.ok(send, conv="g/1", seq=13, ts=0)
        # What found no room was let go, and is pulled as soon as there is some.
        assert seqs(await take(client, 1)) == [1]
        await answer_history(peer, after=10, head=13)
        assert seqs(await take(client, 12)) == list(range(2, 14))


async def test_cursors_are_those_of_what_was_taken(broker: Broker) -> None:
    async with connected(broker, told(5)) as (client, peer):
        await peer.say(entry(6), entry(7), entry(8))
        await trio.testing.wait_all_tasks_blocked()
        assert client.cursors == {"g/1": 5}
        await take(client, 2)
        assert client.cursors == {"g/1": 7}


# Other events


async def test_other_events_have_their_types(broker: Broker) -> None:
    async with connected(broker) as (client, peer):
        await peer.say(
            {"t": "typing", "conv": "g/1", "user": 5, "on": True},
            {"t": "read", "conv": "g/1", "user": 5, "seq": 3},
            {"t": "call", "state": "ringing"},
        )
        assert await take(client, 3) == [
            Typing("g/1", 5, True),
            ReadMark("g/1", 5, 3),
            OtherEvent("call", {"t": "call", "state": "ringing"}),
        ]
