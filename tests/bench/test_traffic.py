"""The fast loop: it counts what came, keeps what it should in flight, and notices what is wrong."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import traffic, wire
from bench.baselines.floor import MESSAGE, OK, server_frame
from bench.opening import Stalled
from bench.traffic import (
    ByteMember,
    Clock,
    HungUp,
    Loop,
    MarkCounter,
    MarkMember,
    Publisher,
    SampleMember,
)

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The load client's end, and the server's."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop(Clock())
    yield loop
    loop.close()


def entry(seq: int) -> bytes:
    return server_frame({**MESSAGE, "seq": seq})


@given(
    st.lists(st.sampled_from([wire.MSG_MARK, b"\xa1t", b"\xa1", b"\xa3ms", b"x"]), max_size=40),
    st.lists(st.integers(1, 9), min_size=1, max_size=60),
)
def test_marks_are_counted_however_the_stream_is_cut(parts: list[bytes], sizes: list[int]) -> None:
    data = b"".join(parts)
    counter = MarkCounter(wire.MSG_MARK)
    at = 0
    for size in sizes:
        counter.feed(data[at : at + size])
        at += size
    counter.feed(data[at:])
    assert counter.count == data.count(wire.MSG_MARK)


def test_a_mark_member_counts_messages(loop: Loop, pair: Pair) -> None:
    ours, theirs = pair
    by_mark = MarkMember(ours, wire.MSG_MARK)
    loop.add_member(by_mark)
    theirs.sendall(entry(1) + entry(2))
    loop.run(1.0, lambda: by_mark.messages.count == 2)
    assert by_mark.messages.count == 2


def test_a_byte_member_counts_all_that_came(loop: Loop, pair: Pair) -> None:
    ours, theirs = pair
    member = ByteMember(ours, bytearray(100))
    loop.add_member(member)
    theirs.sendall(bytes(250))
    loop.run(1.0, lambda: member.bytes == 250)
    assert member.bytes == 250


@pytest.mark.parametrize(
    ("seqs", "complaints"),
    [
        ([4, 5, 6], []),
        ([4, 6], ["seq 6 after 4"]),
        ([4, 5, 5], ["seq 5 after 5"]),
    ],
)
def test_a_sample_sees_holes_and_repeats(
    loop: Loop, pair: Pair, seqs: list[int], complaints: list[str]
) -> None:
    ours, theirs = pair
    sample = SampleMember(ours, wire.MSG_MARK, loop.clock, "ws")
    loop.add_member(sample)
    theirs.sendall(b"".join(map(entry, seqs)))
    loop.run(1.0, lambda: sample.messages.count == len(seqs))
    assert sample.order == complaints


def test_a_sample_reports_what_is_no_entry(loop: Loop, pair: Pair) -> None:
    ours, theirs = pair
    sample = SampleMember(ours, wire.MSG_MARK, loop.clock, "ws")
    loop.add_member(sample)
    theirs.sendall(server_frame({"t": "behind", "conv": "g/1", "head": 9}))
    loop.run(1.0, lambda: bool(sample.order))
    assert "behind" in sample.order[0]


def test_a_sample_knows_how_old_a_message_is(loop: Loop, pair: Pair) -> None:
    ours, theirs = pair
    sample = SampleMember(ours, wire.MSG_MARK, loop.clock, None)
    loop.add_member(sample)
    loop.clock.sampling = True
    sent = loop.clock.tick() - 5_000_000
    theirs.sendall(b"p0003." + wire.stamp(sent))
    loop.run(1.0, lambda: bool(loop.clock.deliveries))
    assert loop.clock.deliveries[0] == loop.clock.now - sent >= 5_000_000


def a_publisher(loop: Loop, sock: socket.socket, in_flight: int) -> Publisher:
    publish = wire.parley_publish({"conv": "g/1"}, 0, "tcp")
    publisher = Publisher(sock, publish, wire.MSG_MARK, wire.OK_MARK, loop.clock, loop.watch)
    loop.add_publisher(publisher, in_flight)
    return publisher


def test_a_publisher_keeps_its_messages_in_flight(loop: Loop, pair: Pair) -> None:
    ours, theirs = pair
    publisher = a_publisher(loop, ours, in_flight=3)
    loop.clock.sampling = True
    loop.start()
    assert len(wire.split(theirs.recv(65_536), "tcp")[0]) == 3
    theirs.sendall((server_frame(OK) + server_frame(MESSAGE)) * 2)
    loop.run(1.0, lambda: publisher.sent == 5)
    assert len(wire.split(theirs.recv(65_536), "tcp")[0]) == 2
    assert (publisher.acks.count, publisher.messages.count) == (2, 2)
    assert loop.in_flight == 3
    assert len(loop.clock.acks) == 2


def test_when_publishing_has_ended_answers_are_only_counted(loop: Loop, pair: Pair) -> None:
    ours, theirs = pair
    publisher = a_publisher(loop, ours, in_flight=2)
    loop.start()
    loop.publishing = False
    theirs.sendall(server_frame(OK) * 2)
    loop.run(1.0, lambda: not loop.in_flight)
    assert (publisher.sent, publisher.acks.count) == (2, 2)


def test_a_full_socket_gets_the_rest_when_it_can_take_it(loop: Loop, pair: Pair) -> None:
    ours, theirs = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    publisher = a_publisher(loop, ours, in_flight=2_000)
    loop.start()
    assert publisher.unsent
    theirs.setblocking(False)
    received = bytearray()

    def read_all() -> bool:
        try:
            received.extend(theirs.recv(65_536))
        except BlockingIOError:
            return False
        return not publisher.unsent

    loop.run(5.0, read_all)
    while len(wire.split(bytes(received), "tcp")[0]) < 2_000:
        received.extend(theirs.recv(65_536))
    payloads, rest = wire.split(bytes(received), "tcp")
    assert [wire.decode(payload)["id"] for payload in payloads] == list(range(2_000))
    assert rest == b""


def test_an_answer_too_many_is_an_error(loop: Loop, pair: Pair) -> None:
    ours, theirs = pair
    a_publisher(loop, ours, in_flight=1)
    loop.start()
    theirs.sendall(server_frame(OK) * 2)
    with pytest.raises(wire.ProtocolError, match="more answers"):
        loop.run(1.0)


def test_a_server_that_hangs_up_ends_the_load(loop: Loop, pair: Pair) -> None:
    ours, theirs = pair
    loop.add_member(MarkMember(ours, wire.MSG_MARK))
    theirs.close()
    with pytest.raises(HungUp, match="member"):
        loop.run(1.0)


def test_silence_with_messages_in_flight_is_noticed(
    loop: Loop, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_publisher(loop, pair[0], in_flight=1)
    monkeypatch.setattr(traffic, "STALL_S", 0.0)
    loop.start()
    with pytest.raises(Stalled, match="in flight"):
        loop.run(5.0)


def test_settling_waits_for_quiet(loop: Loop, pair: Pair) -> None:
    ours, theirs = pair
    member = MarkMember(ours, wire.MSG_MARK)
    loop.add_member(member)
    theirs.sendall(entry(1))
    loop.settle(0.01, 5.0)
    assert member.messages.count == 1
