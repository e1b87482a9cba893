"""A client's life with a broker: connect, command, break, come back, end."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from broker.client import (
    Ack,
    ClientClosed,
    CommandError,
    CommandTimeout,
    ConnectFailed,
    ConnectionChanged,
    ConnectionEnded,
    Disconnected,
    Message,
    NotLoggedIn,
    connect,
)
from broker.client.limits import COMMAND_ATTEMPTS, OPENING_SECONDS, RECONNECT_CAP_SECONDS
from tests.broker.client.peer import ME, URL, Broker, Peer, connected, entry, take, told


@pytest.fixture
def broker() -> Broker:
    return Broker()


# Opening


async def test_greets_with_token_and_device_and_learns_who_it_is(broker: Broker) -> None:
    async def script() -> None:
        peer = await broker.accept()
        hello = await peer.welcome(node="n7")
        assert (hello["token"], hello["device"]) == ("secret", "phone")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        async with connect(
            URL, token="secret", device="phone", open_stream=broker.open_stream
        ) as client:
            assert (client.user, client.node, client.connected) == (ME, "n7", True)


async def test_first_connection_that_cannot_be_made_is_an_error(broker: Broker) -> None:
    broker.refuse = True
    with pytest.raises(ConnectFailed, match=r"broker\.test:7440: connection refused"):
        async with connect(URL, token="t", open_stream=broker.open_stream):
            raise AssertionError("not reached")


async def test_refused_token_is_not_logged_in(broker: Broker) -> None:
    async def script() -> None:
        peer = await broker.accept()
        await peer.error(await peer.expect("hello"), "unauthenticated")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        with pytest.raises(NotLoggedIn):
            async with connect(URL, token="t", open_stream=broker.open_stream):
                raise AssertionError("not reached")


async def test_broker_that_says_nothing_fails_in_time(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    with pytest.raises(ConnectFailed, match="no welcome"):
        async with connect(URL, token="t", open_stream=broker.open_stream):
            raise AssertionError("not reached")
    assert trio.current_time() - began == OPENING_SECONDS


async def test_broker_that_leaves_at_once_fails_at_once(broker: Broker) -> None:
    async def script() -> None:
        await (await broker.accept()).close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        with pytest.raises(ConnectFailed, match="closed"):
            async with connect(URL, token="t", open_stream=broker.open_stream):
                raise AssertionError("not reached")


async def test_error_of_the_block_comes_out_as_it_is() -> None:
    ours, theirs = trio.testing.memory_stream_pair()

    async def opener(address: object, context: object) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return ours

    # The welcome is said in advance, so that no nursery of the test's own is around the client.
    await Peer(theirs).say({"t": "ok", "id": 1, "user": ME})
    with pytest.raises(ZeroDivisionError):
        async with connect(URL, token="t", open_stream=opener):
            _ = 1 / 0


# Commands


async def test_send_returns_after_the_ack(broker: Broker) -> None:
    async with connected(broker) as (client, peer), trio.open_nursery() as nursery:

        async def script() -> None:
            send = await peer.expect("send", conv="g/1", kind="text", body="hi")
            assert 1 <= len(send["key"]) <= 64
            assert "to" not in send
            await peer.ok(send, conv="g/1", seq=5, ts=1234)

        nursery.start_soon(script)
        assert await client.send("g/1", "hi") == Ack("g/1", 5, 1234)


async def test_many_commands_in_flight_are_answered_in_any_order(broker: Broker) -> None:
    answers: dict[int, int] = {}

    async with connected(broker) as (client, peer):

        async def read(seq: int) -> None:
            answers[seq] = await client.read("g/1", seq)

        async with trio.open_nursery() as nursery:
            for seq in range(20):
                nursery.start_soon(read, seq)
            commands = [await peer.expect("read") for _ in range(20)]
            for command in reversed(commands):
                await peer.ok(command, unread=1_000 + command["seq"])
    assert answers == {seq: 1_000 + seq for seq in range(20)}


async def test_refusal_names_field_and_code(broker: Broker) -> None:
    async with connected(broker) as (client, peer), trio.open_nursery() as nursery:

        async def script() -> None:
            command = await peer.expect("group.create", title="")
            await peer.error(command, "bad_request", field="title", retry=False)

        nursery.start_soon(script)
        with pytest.raises(CommandError) as caught:
            await client.command("group.create", title="")
        assert (caught.value.code, caught.value.field) == ("bad_request", "title")


async def test_limited_send_waits_as_told_and_goes_out_under_its_key(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker) as (client, peer), trio.open_nursery() as nursery:

        async def script() -> None:
            first = await peer.expect("send")
            await peer.error(first, "rate_limited", retry=True, after_ms=7_000)
            began = trio.current_time()
            again = await peer.expect("send", key=first["key"], body="hi")
            assert trio.current_time() - began == 7
            await peer.ok(again, conv="g/1", seq=1, ts=0)

        nursery.start_soon(script)
        assert (await client.send("g/1", "hi")).seq == 1


async def test_unavailable_command_without_key_is_the_callers_to_repeat(broker: Broker) -> None:
    async with connected(broker) as (client, peer), trio.open_nursery() as nursery:

        async def script() -> None:
            await peer.error(await peer.expect("group.join"), "unavailable", retry=True)

        nursery.start_soon(script)
        with pytest.raises(CommandError, match="unavailable"):
            await client.join("g/1")


async def test_tries_end(broker: Broker, autojump_clock: trio.testing.MockClock) -> None:
    async with connected(broker) as (client, peer), trio.open_nursery() as nursery:

        async def script() -> None:
            for _ in range(COMMAND_ATTEMPTS):
                await peer.error(await peer.expect("send"), "internal", retry=True)

        nursery.start_soon(script)
        with pytest.raises(CommandError, match="internal"):
            await client.send("g/1", "hi")


async def test_unanswered_command_times_out_and_tells_its_key(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker) as (client, _peer):
        with pytest.raises(CommandTimeout) as caught:
            await client.send("g/1", "hi", key="k", timeout=3)
        assert caught.value.key == "k"


async def test_command_too_large_for_the_broker_is_not_sent(broker: Broker) -> None:
    async with connected(broker, welcome={"limits": {"frame_bytes": 1_000}}) as (client, peer):
        with pytest.raises(CommandError, match="too_large"):
            await client.send("g/1", "x" * 1_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, "g/1", "small")
            await peer.ok(await peer.expect("send", body="small"), conv="g/1", seq=1, ts=0)


# Coming back


async def test_unacknowledged_send_is_sent_again_under_its_key(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker) as (client, peer), trio.open_nursery() as nursery:
        acks: list[Ack] = []

        async def send() -> None:
            acks.append(await client.send("g/1", "hi"))

        nursery.start_soon(send)
        first = await peer.expect("send")
        await peer.close()
        peer = await broker.accept_welcome()
        await peer.ok(await peer.expect("history", conv="g/1"), entries=[], head=0)
        again = await peer.expect("send")
        assert again == first
        await peer.ok(again, conv="g/1", seq=9, ts=0)
        await trio.testing.wait_all_tasks_blocked()
        assert [ack.seq for ack in acks] == [9]


async def test_resends_keep_their_order(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker) as (client, peer), trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(client.send, "g/1", number)
            await peer.expect("send", body=number)
        await peer.close()
        peer = await broker.accept_welcome()
        await peer.ok(await peer.expect("history", conv="g/1"), entries=[], head=0)
        for number in range(10):
            await peer.ok(await peer.expect("send", body=number), conv="g/1", seq=1, ts=0)


async def test_reads_are_repeated_but_a_join_on_its_way_is_not(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker) as (client, peer), trio.open_nursery() as nursery:

        async def join() -> None:
            with pytest.raises(Disconnected, match=r"group\.join"):
                await client.join("g/1")

        nursery.start_soon(join)
        await peer.expect("group.join")
        nursery.start_soon(client.read, "g/1", 4)
        await peer.expect("read")
        await peer.close()
        peer = await broker.accept()
        await peer.welcome()
        await peer.ok(await peer.expect("read", seq=4), unread=0)


async def test_command_given_while_away_waits_for_the_next_connection(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker) as (client, peer), trio.open_nursery() as nursery:
        await peer.close()
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(client.join, "g/1")
        peer = await broker.accept()
        await peer.welcome()
        await peer.ok(await peer.expect("group.join"))


async def test_application_learns_of_break_and_return(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker) as (client, peer):
        await peer.close()
        lost = await anext(client)
        assert isinstance(lost, ConnectionChanged)
        assert not lost.up
        await broker.accept_welcome()
        assert await anext(client) == ConnectionChanged(up=True)


async def test_draining_broker_gives_the_time_to_come_back(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker) as (_client, peer):
        await peer.say({"t": "bye", "code": "draining", "reconnect": True, "after_ms": 4_321})
        began = trio.current_time()
        await broker.accept_welcome()
        assert trio.current_time() - began == pytest.approx(4.321)


async def test_broker_that_stays_away_is_asked_ever_more_rarely(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker) as (_client, peer):
        broker.refuse = True
        await peer.close()
        await trio.sleep(3_600)
        pauses = [b - a for a, b in zip(broker.dialled_at[1:], broker.dialled_at[2:], strict=False)]
        assert max(pauses) <= RECONNECT_CAP_SECONDS
        # The mean of full jitter is half its bound, so an hour has about 240 tries at the cap.
        assert 120 < len(pauses) < 480
        broker.refuse = False
        await broker.accept_welcome()


@pytest.mark.parametrize(
    ("code", "error"),
    [("session_revoked", NotLoggedIn), ("replaced", ConnectionEnded), ("later", ConnectionEnded)],
)
async def test_goodbye_for_good_ends_the_client(
    broker: Broker,
    autojump_clock: trio.testing.MockClock,
    code: str,
    error: type[Exception],
) -> None:
    async with connected(broker) as (client, peer), trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(error):
                await client.send("g/1", "hi")

        nursery.start_soon(send)
        await peer.expect("send")
        await peer.say(entry(1), {"t": "bye", "code": code, "reconnect": False})
        assert (await take(client, 1))[0].seq == 1
        with pytest.raises(error):
            await anext(client)
        with pytest.raises(error):
            await client.send("g/1", "more")
        await trio.sleep(1_000)
        assert broker.idle()


async def test_fresh_token_is_asked_for_each_connection(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    tokens = iter(["one", "two"])

    async def token() -> str:
        await trio.lowlevel.checkpoint()
        return next(tokens)

    peers: list[str] = []

    async def script() -> None:
        for _ in range(2):
            peer = await broker.accept()
            peers.append((await peer.welcome())["token"])
            if len(peers) == 1:
                await peer.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        async with connect(URL, token=token, open_stream=broker.open_stream) as client:
            await take(client, 2)
    assert peers == ["one", "two"]


async def test_watched_users_are_watched_again(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker) as (client, peer), trio.open_nursery() as nursery:
        nursery.start_soon(client.watch, [8, 9])
        await peer.ok(await peer.expect("presence.watch"), users=[])
        await trio.testing.wait_all_tasks_blocked()
        await peer.close()
        peer = await broker.accept()
        await peer.welcome()
        await peer.ok(
            await peer.expect("presence.watch", users=[8, 9]),
            users=[{"user": 8, "online": True}],
        )
        await peer.synced()
        _lost, _back, presence = await take(client, 3)
        assert presence.users[0].user == 8


# Heartbeat


async def test_idle_client_pings_once_a_heartbeat(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker, welcome={"heartbeat_ms": 10_000}) as (_client, peer):
        for _ in range(3):
            began = trio.current_time()
            await peer.ok(await peer.expect("ping"), server_time=0)
            assert trio.current_time() - began == 10


async def test_silence_of_two_heartbeats_is_a_dead_connection(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker, welcome={"heartbeat_ms": 10_000}) as (client, _peer):
        began = trio.current_time()
        lost = await anext(client)
        assert isinstance(lost, ConnectionChanged)
        assert "silent for 20 s" in lost.reason
        assert trio.current_time() - began == pytest.approx(20)
        await broker.accept_welcome()


# The end


async def test_leaving_the_block_closes_the_connection_and_ends_everything(
    broker: Broker,
) -> None:
    async with connected(broker) as (client, peer):
        pass
    assert await peer.hear() is None
    with pytest.raises(ClientClosed):
        await client.send("g/1", "late")
    assert [event async for event in client] == []


async def test_leaving_the_block_after_the_goodbye_does_not_come_back(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker) as (client, peer):
        link = client._link
        await peer.say({"t": "bye", "code": "draining", "reconnect": True, "after_ms": 1})
        while link is not None and link._end is None:
            await trio.lowlevel.checkpoint()
        began = trio.current_time()
    assert trio.current_time() == began
    assert broker.idle()


async def test_leaving_the_block_while_away_does_not_wait(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(broker) as (_client, peer):
        broker.refuse = True
        await peer.close()
        await trio.sleep(100)
        began = trio.current_time()
    assert trio.current_time() == began


async def test_nonsense_from_the_broker_is_a_broken_connection(
    broker: Broker, autojump_clock: trio.testing.MockClock
) -> None:
    for nonsense in (
        b"\0\0\0\x01\xc1",  # no msgpack
        b"\0\0\0\x02\x91\x01",  # no map
        b"\xff\xff\xff\xff",  # too long
    ):
        async with connected(Broker()) as (client, peer):
            await peer.stream.send_all(nonsense)
            lost = await anext(client)
            assert isinstance(lost, ConnectionChanged)
            assert "the broker" in lost.reason
    async with connected(broker, told(3)) as (client, peer):
        await peer.say({"t": "msg", "conv": "g/1"})
        lost = await anext(client)
        assert lost == ConnectionChanged(up=False, reason="the broker sent an entry without 'seq'")
        peer = await broker.accept()
        await peer.welcome()
        await peer.synced(told(4, entry(4)), expect={"g/1": 3})
        _back, message = await take(client, 2)
        assert isinstance(message, Message)
        assert message.body == "m4"
