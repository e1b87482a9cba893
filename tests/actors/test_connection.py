"""A connection's own life: holding back, ending, and answering those who have stopped sending."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio
import trio.testing

from actors.connection import Connection
from actors.conversation import Conversation
from actors.images import Image
from actors.wires import TCP_MSGPACK
from broker.wire import commands as c
from broker.wire.errors import ByeCode
from broker.wire.limits import Limits
from tests.actors.world import World, world
from tests.helpers.peer import Ended, Peer, TcpCarrier, framed

CONV = "d/1/2"
BODY = "x" * 20_000


def stream_of(peer: Peer) -> trio.SocketStream:
    assert isinstance(peer.carrier, TcpCarrier)
    assert isinstance(peer.carrier.stream, trio.SocketStream)
    return peer.carrier.stream


async def fill(made: World, count: int) -> None:
    _, peer = await made.join(2)
    for n in range(count):
        await peer.ok("send", conv=CONV, key=f"{n}", kind="text", body=BODY)
    await peer.aclose()


async def all_frames(peer: Peer) -> list[dict[str, Any]]:
    frames = []
    try:
        while True:
            frames.append(await peer.carrier.receive())
    except Ended:
        return frames


async def test_who_has_said_their_last_still_gets_all_answers() -> None:
    async with world() as made:
        await fill(made, 30)
        connection, peer = await made.join(1)
        for _ in range(4):
            await peer.send("history", conv=CONV, after=0)
        await stream_of(peer).send_eof()
        await made.until(lambda: connection.half_closed and connection.stalled)
        with trio.fail_after(5):
            frames = await all_frames(peer)
        assert [frame["id"] for frame in frames if "id" in frame] == [1, 2, 3, 4]
        await made.until(lambda: connection not in made.node.connections)


async def test_half_closed_with_a_command_under_way_waits_for_it() -> None:
    async with world() as made:
        connection, peer = await made.join(1)
        made.store.commits.close()
        await peer.send("send", conv=CONV, key="a", kind="text", body="a")
        await stream_of(peer).send_eof()
        await made.until(lambda: connection.half_closed)
        made.store.commits.open()
        with trio.fail_after(5):
            frames = await all_frames(peer)
        assert frames[0]["seq"] == 1


async def test_a_stream_that_ends_within_a_frame_is_told_where() -> None:
    async with world() as made:
        _, peer = await made.join(1)
        await peer.send("ping")
        await stream_of(peer).send_all(framed({"t": "ping", "id": 2})[:9])
        await stream_of(peer).send_eof()
        with trio.fail_after(5):
            answer, error, bye = await all_frames(peer)
        assert (answer["t"], answer["id"]) == ("ok", 1)
        assert (error["t"], error["code"]) == ("error", "bad_frame")
        assert "within a frame" in error["message"]
        assert "9 bytes" in error["message"]
        assert (bye["t"], bye["code"], bye["reconnect"]) == ("bye", "bad_frame", False)


async def test_the_goodbye_reaches_who_has_stopped_sending() -> None:
    async with world() as made:
        await fill(made, 30)
        connection, peer = await made.join(1)
        await peer.send("history", conv=CONV, after=0)
        await peer.send("history", conv=CONV, after=0)
        await peer.send("history", conv=CONV, after=0)
        await made.until(lambda: connection.stalled and not connection.in_flight)
        await stream_of(peer).send_all(framed(b"\xc1"))
        await stream_of(peer).send_eof()
        await made.until(lambda: connection.closing and connection.half_closed)
        with trio.fail_after(5):
            frames = await all_frames(peer)
        assert [frame["t"] for frame in frames][-2:] == ["error", "bye"]


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_no_more_commands_are_read_than_may_be_unanswered(limit: int) -> None:
    async with world(limits=Limits(in_flight=limit)) as made:
        connection, peer = await made.join(1)
        await peer.ok("send", conv=CONV, key="first", kind="text", body="a")
        made.store.commits.close()
        ids = [
            await peer.send("send", conv=CONV, key=f"{n}", kind="text", body="a") for n in range(20)
        ]
        await made.until(lambda: connection.in_flight == limit and bool(made.store.commits.waiting))
        made.store.commits.open()
        with trio.fail_after(5):
            seqs = [(await peer.reply(id))["seq"] for id in ids]
        assert seqs == list(range(2, 22))
        assert (connection.in_flight, connection.held) == (0, 0)


async def test_commands_behind_a_full_mailbox_keep_their_order() -> None:
    async with world(mailbox_commands=2) as made:
        connection, peer = await made.join(1)
        made.store.loads.close()
        ids = [
            await peer.send("send", conv=CONV, key=f"{n}", kind="text", body="a") for n in range(20)
        ]
        await made.until(lambda: bool(connection.held) and bool(made.store.loads.waiting))
        assert connection.in_flight == 3
        made.store.loads.open()
        with trio.fail_after(5):
            seqs = [(await peer.reply(id))["seq"] for id in ids]
        assert seqs == list(range(1, 21))


async def test_a_defect_in_reading_closes_one_connection_alone() -> None:
    async with world() as made:
        broken, peer = await made.join(1)
        _, other = await made.join(2)

        class Broken:
            buffered = 0

            def feed(self, data: bytes) -> list[bytes]:
                raise ZeroDivisionError

        broken.framer = Broken()  # type: ignore[assignment]
        await peer.send("ping")
        with trio.fail_after(5):
            await peer.ended()
            await other.ok("ping")
        assert made.node.counters.crashes == 1
        assert list(made.node.connections) != [broken]


async def test_a_defect_in_a_handler_is_that_commands_answer() -> None:
    def broken(connection: Connection, command: Any) -> None:
        raise ZeroDivisionError

    async with world() as made:
        made.node.open_table = {**made.node.open_table, c.Typing: broken}
        connection, peer = await made.join(1)
        error = await peer.error("typing", conv=CONV)
        assert (error["code"], error["retry"]) == ("internal", True)
        await peer.ok("ping")
        assert connection.in_flight == 0


async def test_a_socket_that_cannot_be_watched_leaves_nothing_behind() -> None:
    async with world() as made:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        made.node.reader._epoll.register(ours.fileno(), 0)
        connection = Connection(made.node, ours, wire=TCP_MSGPACK, tls=None, peer="pair:0")
        with pytest.raises(FileExistsError):
            await connection.run()
        assert connection not in made.node.connections
        assert connection not in made.node.opening
        theirs.close()


async def test_who_leaves_while_commands_are_under_way_harms_nobody() -> None:
    async with world(mailbox_commands=1) as made:
        leaving, peer = await made.join(1)
        _, other = await made.join(2)
        await other.ok("send", conv=CONV, key="first", kind="text", body="a")
        made.store.commits.close()
        for n in range(5):
            await peer.send("send", conv=CONV, key=f"{n}", kind="text", body="a")
        await made.until(lambda: bool(leaving.held) and bool(made.store.commits.waiting))
        await peer.aclose()
        await made.until(lambda: leaving not in made.node.connections)
        made.store.commits.open()
        with trio.fail_after(5):
            assert (await other.ok("send", conv=CONV, key="b", kind="text", body="a"))["seq"] >= 3
        conv: Conversation = made.conversation(CONV)
        assert conv.statistics().waiting == 0


async def burst(made: World, ann: Peer) -> list[int]:
    """With default settings: 100 bodies of 50 KB that come in one turn, 5 MB together."""
    made.store.loads.close()
    ids = []
    for n in range(100):
        fields = {"conv": CONV, "key": f"{n}", "kind": "text", "body": "x" * 50_000}
        ids.append(await ann.send("send", **fields))
    conv = made.conversation(CONV)
    await made.until(lambda: conv.statistics().mailbox.waiting == 100)
    made.store.loads.open()
    await made.until(lambda: conv.head == 100)
    return ids


async def test_a_turn_of_more_than_the_hard_mark_cuts_nobody() -> None:
    async with world(users=3) as made:
        slow, unread = await made.join(2)
        sender, ann = await made.join(1)
        _, other = await made.join(3)
        ids = await burst(made, ann)
        await made.until(lambda: bool(slow.behind))
        assert slow.stalled
        assert slow.queued_bytes <= made.node.options.high_bytes
        assert not sender.closing
        assert made.node.counters.slow_cut == made.node.counters.crashes == 0
        with trio.fail_after(5):
            await other.ok("ping")
            assert [(await ann.reply(id))["seq"] for id in ids] == list(range(1, 101))
            for peer in (ann, unread):
                assert await everything(peer) == list(range(1, 101))


async def everything(peer: Peer) -> list[int]:
    """What comes live, and what is pulled once that stops."""
    seqs: list[int] = []
    while len(seqs) < 100 and (event := await peer.event())["t"] == "msg":
        seqs.append(event["seq"])
    while len(seqs) < 100:
        page = await peer.ok("history", conv=CONV, after=len(seqs))
        seqs += [entry["seq"] for entry in page["entries"]]
    return seqs


async def test_a_half_sent_piece_above_the_hard_mark_ends_its_connection_alone() -> None:
    async with world(users=3, hard_bytes=20_000, high_bytes=10_000) as made:
        connection, unread = made.pair(buffer_bytes=1)
        await made.until(lambda: connection in made.node.connections)
        connection.opened(2, "nobody reads this", "")
        _, ann = await made.join(1)
        with trio.fail_after(5):
            await ann.ok("send", conv=CONV, key="a", kind="text", body="x" * 60_000)
        await made.until(lambda: connection.closing)
        assert made.node.counters.slow_cut == 1
        await ann.ok("ping")
        unread.close()


async def test_a_large_turn_of_several_senders_is_heard_in_order() -> None:
    async with world() as made:
        crowd = [(await made.join(user))[1] for user in (1, 2) * 3]
        made.store.loads.close()
        conv = made.node.registry.conversation(CONV)
        for n, peer in enumerate([crowd[0]] * 6 + [crowd[1]]):
            await peer.send("send", conv=CONV, key=f"{n}", kind="text", body="x" * 50_000)
            await made.until(lambda waiting=n + 1: len(conv._mailbox) == waiting)
        made.store.loads.open()
        with trio.fail_after(5):
            for peer in crowd:
                assert [(await peer.event("msg"))["seq"] for _ in range(7)] == list(range(1, 8))


async def test_nothing_is_done_for_who_was_cut_while_their_commands_were_read() -> None:
    """What is watched after the goodbye would be watched for ever."""
    async with world(high_bytes=1_000, hard_bytes=2_000) as made:
        connection, unread = made.pair(buffer_bytes=1)
        await made.until(lambda: connection in made.node.connections)
        connection.opened(1, "nobody reads this", "")
        while not connection.stalled:
            unread.send(framed({"t": "ping", "id": 1}) * 10)
            await trio.testing.wait_all_tasks_blocked()
        unread.send(
            framed({"t": "nonsense", "id": 2}) * 100
            + framed({"t": "presence.watch", "id": 3, "users": [2]})
        )
        await made.until(lambda: connection.closing)
        assert made.node.counters.slow_cut == 1
        assert connection.watching is None
        unread.close()


async def test_a_broadcast_under_way_does_not_disturb_a_goodbye() -> None:
    """Of who leaves between two parts of a fan-out, their last frames are still told."""
    async with world() as made:
        leaving, peer = await made.join(1)
        image = Image(framed({"t": "msg", "seq": 1}), made.node.registry.conversation(CONV))
        leaving.bye(ByeCode.REPLACED)
        await made.node.flusher.flush()
        made.node.flusher.broadcast([leaving], image)
        await made.node.flusher.flush_turn()
        await made.until(lambda: leaving in made.node.lingering)
        await trio.testing.wait_all_tasks_blocked()
        assert leaving in made.node.connections, "it was closed before the peer has read the end"
        with trio.fail_after(5):
            assert [frame["t"] for frame in await all_frames(peer)] == ["bye"]


async def test_who_breaks_off_at_something_long_occupies_nobody() -> None:
    async def long(connection: Connection, command: Any) -> None:
        await trio.sleep_forever()

    async with world() as made:
        made.node.opening_table = {c.Ping: lambda connection, ping: connection.begin(long, ping)}
        connection, peer = made.accept()
        await peer.send("ping")
        await made.until(lambda: bool(connection.held))
        await peer.aclose()
        with trio.fail_after(2):
            await made.until(lambda: connection.closing)
            await trio.testing.wait_all_tasks_blocked()
