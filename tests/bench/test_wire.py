"""What the load client writes is what a server reads, and the other way round."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from bench import wire
from bench.baselines.floor import MESSAGE, OK, server_frame
from bench.wire import ProtocolError, Transport
from broker.wire.commands import AnyCommand, Send

TRANSPORTS: tuple[Transport, ...] = ("ws", "tcp")


def payloads_at_server(data: bytes) -> list[bytes]:
    """What the library's server makes of bytes from a client."""
    server = ServerProtocol(state=State.OPEN, max_size=None)
    server.receive_data(data)
    events = server.events_received()
    assert all(isinstance(event, Frame) and event.opcode is Opcode.BINARY for event in events)
    return [bytes(event.data) for event in events if isinstance(event, Frame)]


@given(st.lists(st.binary(max_size=70_000), max_size=4))
def test_a_server_reads_the_frames_that_are_made(payloads: list[bytes]) -> None:
    data = b"".join(wire.frame(payload, "ws") for payload in payloads)
    assert payloads_at_server(data) == payloads


def from_server(payload: bytes, transport: Transport) -> bytes:
    if transport == "tcp":
        return len(payload).to_bytes(4, "big") + payload
    return Frame(Opcode.BINARY, payload).serialize(mask=False)


def in_pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for begin, end in itertools.pairwise(edges):
        yield data[begin:end]


@pytest.mark.parametrize("transport", TRANSPORTS)
@given(
    payloads=st.lists(st.one_of(st.binary(max_size=300), st.just(bytes(66_000))), max_size=5),
    cuts=st.lists(st.integers(min_value=0), max_size=8),
)
def test_frames_are_found_however_the_stream_is_cut(
    transport: Transport, payloads: list[bytes], cuts: list[int]
) -> None:
    data = b"".join(from_server(payload, transport) for payload in payloads)
    found: list[bytes] = []
    rest = b""
    for piece in in_pieces(data, cuts):
        more, rest = wire.split(rest + piece, transport)
        found += more
    assert found == payloads
    assert rest == b""


def test_pings_are_passed_over() -> None:
    ping = Frame(Opcode.PING, b"hm?").serialize(mask=False)
    assert wire.split(ping + from_server(b"a", "ws") + ping, "ws") == ([b"a"], b"")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x88\x02\x03\xe8", "closed"),
        (b"\x82\x81mask!", "masked"),
        (b"\x02\x01a", "0x2"),
        (b"\xc2\x01a", "0xc2"),
    ],
)
def test_what_does_not_belong_into_a_measurement_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        wire.split(data, "ws")


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("to", [{"conv": "g/12"}, {"to": {"user": 2**40}}])
@given(
    n=st.integers(0, wire.SEND_ID_MAX),
    publisher=st.integers(0, 9_999),
    now=st.integers(0, 2**63 - 1),
)
def test_publishes_are_sends_that_the_broker_understands(
    transport: Transport, to: dict[str, object], n: int, publisher: int, now: int
) -> None:
    publish = wire.parley_publish(to, publisher, transport)
    data = publish(n, wire.stamp(now))
    payload = payloads_at_server(data)[0] if transport == "ws" else data[4:]
    assert data == wire.frame(payload, transport)
    command = msgspec.msgpack.decode(payload, type=AnyCommand)
    assert isinstance(command, Send)
    assert command.id == n
    assert command.key == f"{n:012d}"
    assert (command.conv, command.to and command.to.user) in [("g/12", None), (None, 2**40)]
    assert command.kind == "text"
    assert isinstance(command.body, str)
    assert len(command.body) == wire.BODY_BYTES
    assert command.body.startswith(f"p{publisher:04d}.{now:019d}x")
    assert len(data) == len(publish(0, wire.stamp(0)))


@given(publisher=st.integers(0, 9_999), now=st.integers(0, 2**63 - 1))
def test_a_publish_to_nats_has_the_length_that_it_announces(publisher: int, now: int) -> None:
    head, body, end = wire.nats_publish(b"s1", publisher)(7, wire.stamp(now)).split(b"\r\n")
    assert head == b"PUB s1 %d" % len(body)
    assert len(body) == wire.BODY_BYTES
    assert body.startswith(wire.tag(publisher))
    assert end == b""


def test_each_frame_of_a_server_holds_its_mark_once() -> None:
    for fields, mark in ((MESSAGE, wire.MSG_MARK), (OK, wire.OK_MARK)):
        frame = server_frame(fields)
        assert frame.count(mark) == 1
        assert frame.count(wire.MSG_MARK) + frame.count(wire.OK_MARK) == 1
        assert wire.split(frame, "ws") == ([msgpack.packb(fields)], b"")


def test_a_reply_that_is_no_map_is_refused() -> None:
    with pytest.raises(ProtocolError, match="not a map"):
        wire.decode(msgpack.packb([1]))
