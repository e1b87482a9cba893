"""What two independent WebSocket clients send comes out whole and in order, however it is cut.

The peers are the client protocols of `websockets` and of `wsproto`, both without I/O.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Protocol
from unittest.mock import patch

import pytest
import wsproto.events
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.protocol import State
from websockets.uri import parse_uri
from websockets.utils import apply_mask as apply_mask_in_python
from wsproto.connection import Connection, ConnectionType

from broker.wire.errors import Code
from broker.wire.websocket import (
    WebSocketFramer,
    apply_mask,
    binary_header,
    close_frame,
    text_header,
    wrap_binary,
    wrap_text,
)
from tests.broker.wire.test_framing import GC_HEADER_BYTES, feed_all, pieces

LIMIT = 1_000
CONTROL_MAX_BYTES = 2 + 125


# The peers


class Client(Protocol):
    def message(self, parts: list[bytes], pings: list[bytes]) -> bytes:
        """One binary message in these fragments, with a ping before each but the first."""

    def read(self, data: bytes) -> list[tuple[str, bytes]]:
        """What the server sent."""


class WebsocketsClient:
    def __init__(self) -> None:
        self.protocol = ClientProtocol(parse_uri("ws://test/ws"), state=State.OPEN)

    def message(self, parts: list[bytes], pings: list[bytes]) -> bytes:
        for number, part in enumerate(parts):
            final = number == len(parts) - 1
            if number == 0:
                self.protocol.send_binary(part, fin=final)
            else:
                if number <= len(pings):
                    self.protocol.send_ping(pings[number - 1])
                self.protocol.send_continuation(part, fin=final)
        return b"".join(self.protocol.data_to_send())

    def read(self, data: bytes) -> list[tuple[str, bytes]]:
        self.protocol.receive_data(data)
        assert self.protocol.parser_exc is None
        frames = [event for event in self.protocol.events_received() if isinstance(event, Frame)]
        return [(frame.opcode.name.lower(), bytes(frame.data)) for frame in frames]


class WsprotoClient:
    def __init__(self) -> None:
        self.connection = Connection(ConnectionType.CLIENT)

    def message(self, parts: list[bytes], pings: list[bytes]) -> bytes:
        sent = b""
        for number, part in enumerate(parts):
            if 0 < number <= len(pings):
                sent += self.connection.send(wsproto.events.Ping(pings[number - 1]))
            final = number == len(parts) - 1
            event = wsproto.events.BytesMessage(part, message_finished=final)
            sent += self.connection.send(event)
        return sent

    def read(self, data: bytes) -> list[tuple[str, bytes]]:
        self.connection.receive_data(data)
        seen = []
        for event in self.connection.events():
            match event:
                case wsproto.events.BytesMessage():
                    seen.append(("binary", bytes(event.data)))
                case wsproto.events.TextMessage():
                    seen.append(("text", event.data.encode()))
                case wsproto.events.Pong():
                    seen.append(("pong", bytes(event.payload)))
                case wsproto.events.CloseConnection():
                    reason = (event.reason or "").encode()
                    seen.append(("close", event.code.to_bytes(2, "big") + reason))
        return seen


PEERS = pytest.mark.parametrize("peer", [WebsocketsClient, WsprotoClient])


def frame(
    first: int, payload: bytes = b"", *, masked: bool = True, mask: bytes = b"\1\2\3\4"
) -> bytes:
    """One frame, by hand: vectors that owe nothing to any library."""
    size = len(payload)
    bit = 0x80 if masked else 0
    if size < 126:
        head = bytes((first, bit | size))
    elif size < 65536:
        head = bytes((first, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, bit | 127)) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def framer(*, text: bool = False, limit: int = LIMIT) -> WebSocketFramer:
    return WebSocketFramer(text, limit)


# Receiving


MESSAGES = st.lists(
    st.tuples(
        st.lists(st.binary(max_size=200), min_size=1, max_size=4),
        st.lists(st.binary(max_size=125), max_size=3),
    ),
    max_size=6,
)


@PEERS
@given(messages=MESSAGES, cuts=st.lists(st.integers(0, 5_000)))
def test_messages_come_out_whole_and_in_order(
    peer: Callable[[], Client],
    messages: list[tuple[list[bytes], list[bytes]]],
    cuts: list[int],
) -> None:
    client = peer()
    receiver = framer()
    stream = b"".join(client.message(parts, pings) for parts, pings in messages)
    assert feed_all(receiver, pieces(stream, cuts)) == [b"".join(parts) for parts, _ in messages]
    assert receiver.error is None
    assert receiver.buffered == 0
    sent = [ping for parts, pings in messages for ping in pings[: len(parts) - 1]]
    assert client.read(receiver.control) == [("pong", ping) for ping in sent[-1:]]


@PEERS
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 131_072])
def test_messages_of_every_size_class(peer: Callable[[], Client], size: int) -> None:
    payload = b"x" * size
    receiver = framer(limit=131_072)
    stream = peer().message([payload], []) * 2
    assert receiver.feed(stream) == [payload, payload]
    assert feed_all(receiver, [stream[:7], stream[7:-1], stream[-1:]]) == [payload, payload]
    assert receiver._library is None, "ordinary messages do without the library"


def test_a_frame_is_kept_until_it_is_whole() -> None:
    receiver = framer()
    stream = frame(0x82, b"x" * 200)
    for count in range(1, len(stream)):
        assert receiver.feed(stream[count - 1 : count]) == []
        assert receiver.buffered == count
    assert receiver.feed(stream[-1:] + frame(0x82, b"next")) == [b"x" * 200, b"next"]


def test_a_frame_in_many_pieces_is_collected_in_place() -> None:
    receiver = framer()
    stream = frame(0x82, b"x" * 200)
    receiver.feed(stream[:-50])
    collected = receiver._partial
    for position in range(-50, -1):
        receiver.feed(stream[position : position + 1])
        assert receiver._partial is collected
    assert receiver.feed(stream[-1:]) == [b"x" * 200]
    assert receiver._partial is None


def test_text_messages_carry_json() -> None:
    receiver = framer(text=True)
    word = "汉字".encode()
    fragments = frame(0x01, word[:2]) + frame(0x80, word[2:])
    assert receiver.feed(frame(0x81, word) + fragments) == [word, word]


def test_fragments_wait_for_their_last() -> None:
    receiver = framer()
    assert receiver.feed(frame(0x02, b"one ")) == []
    assert receiver.buffered == 4
    assert receiver.feed(frame(0x00, b"two ") + frame(0x00)) == []
    assert receiver.feed(frame(0x80, b"three") + frame(0x82, b"whole")) == [
        b"one two three",
        b"whole",
    ]
    assert receiver.buffered == 0


# Pings, pongs, closing


@pytest.mark.parametrize("payload", [b"", b"are you there", b"x" * 125])
def test_a_ping_is_answered_with_its_payload(payload: bytes) -> None:
    receiver = framer()
    assert receiver.feed(frame(0x89, payload)) == []
    assert receiver.control == frame(0x8A, payload, masked=False)
    assert WebsocketsClient().read(receiver.control) == [("pong", payload)]
    assert receiver._library is None


def test_a_pong_is_ignored() -> None:
    receiver = framer()
    assert receiver.feed(frame(0x8A, b"?") + frame(0x82, b"hi")) == [b"hi"]
    assert (receiver.control, receiver.error) == (b"", None)


@pytest.mark.parametrize("prelude", [b"", frame(0x02, b"a") + frame(0x80, b"b")])
def test_a_flood_of_pings_costs_one_pong(prelude: bytes) -> None:
    receiver = framer()
    receiver.feed(prelude)
    for number in range(50):
        receiver.feed(frame(0x89, b"x" * 125) * 100 + frame(0x89, b"%d" % number))
        assert len(receiver.control) <= CONTROL_MAX_BYTES
    assert receiver.control == frame(0x8A, b"49", masked=False)


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe9bye", b"\x0f\xa1" + b"x" * 123])
def test_a_close_is_echoed_and_is_the_end(payload: bytes) -> None:
    receiver = framer()
    stream = frame(0x82, b"last") + frame(0x88, payload) + frame(0x82, b"after")
    assert receiver.feed(stream) == [b"last"]
    assert receiver.ended
    assert receiver.error is None
    assert receiver.control == frame(0x88, payload, masked=False)
    assert receiver.feed(frame(0x82, b"later")) == []
    assert receiver.buffered == 0


PRELUDES = {"ordinary": b"", "in the library's hands": frame(0x02, b"a") + frame(0x80, b"b")}


@given(
    payload=st.binary(max_size=125)
    | st.builds(
        lambda status, reason: status.to_bytes(2, "big") + reason,
        st.integers(900, 5_100) | st.integers(0, 65_535),
        st.text(max_size=30).map(str.encode) | st.binary(max_size=123),
    ),
    mask=st.binary(min_size=4, max_size=4),
    cuts=st.lists(st.integers(0, 140)),
)
def test_every_close_is_answered_as_the_library_would(
    payload: bytes, mask: bytes, cuts: list[int]
) -> None:
    stream = frame(0x88, payload[:125], mask=mask)
    outcomes = []
    for prelude in PRELUDES.values():
        receiver = framer()
        receiver.feed(prelude)
        feed_all(receiver, pieces(stream, cuts))
        error = receiver.error.message if receiver.error else None
        outcomes.append((receiver.control, receiver.ended, error))
    assert outcomes[0] == outcomes[1]


def test_a_good_close_does_without_the_library() -> None:
    with patch("broker.wire.websocket._Library", side_effect=AssertionError("it was asked")):
        for payload in (b"", b"\x03\xe8", b"\x0f\xa1enough"):
            receiver = framer()
            assert receiver.feed(frame(0x88, payload)) == []
            assert receiver.ended


@PEERS
@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("", ""),
        ("full", "full"),
        ("x" * 200, "x" * 123),
        ("é" * 100, "é" * 61),
        ("😀" * 99, "😀" * 30),
    ],
)
def test_our_close_is_understood_and_cut_between_characters(
    peer: Callable[[], Client], reason: str, kept: str
) -> None:
    data = close_frame(4005, reason)
    assert len(data) <= CONTROL_MAX_BYTES
    assert peer().read(data) == [("close", (4005).to_bytes(2, "big") + kept.encode())]


# What breaks a connection


@pytest.mark.parametrize(
    ("stream", "hint"),
    [
        (frame(0x82, b"hi", masked=False), "mask"),
        (frame(0x82, masked=False), "mask"),
        (frame(0x89, b"hi", masked=False), "mask"),
        (frame(0xC2, b"hi"), "reserved bits"),
        (frame(0xA2, b"hi"), "reserved bits"),
        (frame(0x92, b"hi"), "reserved bits"),
        (frame(0x83, b"hi"), "opcode"),
        (frame(0x87, b"hi"), "opcode"),
        (frame(0x8B, b"hi"), "opcode"),
        (frame(0x8F, b"hi"), "opcode"),
        (frame(0x09, b"hi"), "fragmented control"),
        (frame(0x08), "fragmented control"),
        (frame(0x89, b"x" * 126), "control frame too long"),
        (frame(0x8A, b"x" * 126), "control frame too long"),
        (frame(0x88, b"\x03\xe8" + b"x" * 124), "control frame too long"),
        (frame(0x88, b"\x03"), "close frame too short"),
        (frame(0x88, b"\x03\xed"), "status code"),
        (frame(0x88, b"\x03\xe8\xff"), "utf-8"),
        (frame(0x80, b"hi"), "unexpected continuation"),
        (frame(0x00, b"hi"), "unexpected continuation"),
        (frame(0x02, b"a") + frame(0x82, b"b"), "expected a continuation"),
        (frame(0x02, b"a") + frame(0x02, b"b"), "expected a continuation"),
        (frame(0x81, b"{}"), "text message"),
        (frame(0x01, b"{"), "text message"),
        (b"GET /ws HTTP/1.1\r\n\r\n", ""),
    ],
)
@pytest.mark.parametrize("whole", [True, False], ids=["at once", "byte by byte"])
def test_a_broken_frame_is_an_error_after_all_good_ones(
    stream: bytes, hint: str, whole: bool
) -> None:
    receiver = framer()
    assert receiver.feed(frame(0x82, b"good")) == [b"good"]
    feed_all(receiver, [stream] if whole else [bytes((byte,)) for byte in stream])
    assert receiver.error is not None
    assert receiver.error.code is Code.BAD_FRAME
    assert hint in receiver.error.message
    assert receiver.feed(frame(0x82, b"late")) == []
    assert receiver.buffered == 0
    assert receiver.control == b"", "the goodbye is not the framer's to say"


def test_frames_before_the_fault_are_given_out_with_it() -> None:
    ordinary = framer()
    assert ordinary.feed(frame(0x82, b"good") + frame(0x83)) == [b"good"]
    assert ordinary.error is not None
    careful = framer()
    stream = frame(0x02, b"go") + frame(0x80, b"od") + frame(0x82, b"too") + frame(0x83)
    assert careful.feed(stream) == [b"good", b"too"]
    assert careful.error is not None


def test_binary_is_refused_where_text_is_spoken() -> None:
    receiver = framer(text=True)
    assert receiver.feed(frame(0x81, b"{}") + frame(0x82, b"\x80")) == [b"{}"]
    assert receiver.error is not None
    assert "binary message" in receiver.error.message


@pytest.mark.parametrize(
    "head",
    [
        b"\x82\xfe" + (LIMIT + 1).to_bytes(2, "big"),
        b"\x82\xff" + (LIMIT + 1).to_bytes(8, "big"),
        b"\x82\xff" + b"\xff" * 8,
    ],
)
def test_a_message_over_the_limit_is_refused_by_its_header_alone(head: bytes) -> None:
    receiver = framer()
    assert receiver.feed(frame(0x82, b"good") + head) == [b"good"]
    assert receiver.error is not None
    assert receiver.error.code is Code.TOO_LARGE
    assert str(LIMIT) in receiver.error.message


def test_a_message_over_the_limit_is_refused_when_it_comes_whole() -> None:
    receiver = framer()
    assert receiver.feed(frame(0x82, b"x" * LIMIT) + frame(0x82, b"x" * (LIMIT + 1))) == [
        b"x" * LIMIT
    ]
    assert receiver.error is not None
    assert receiver.error.code is Code.TOO_LARGE


def test_fragments_are_counted_together() -> None:
    receiver = framer()
    receiver.feed(frame(0x02, b"x" * 600))
    assert receiver.feed(frame(0x80, b"x" * 400)) == [b"x" * LIMIT]
    receiver.feed(frame(0x02, b"x" * 600))
    receiver.feed(frame(0x80, b"x" * 401)[:4])
    assert receiver.error is not None
    assert receiver.error.code is Code.TOO_LARGE


FRAGMENTS_OF_CHAOS = st.one_of(
    st.binary(max_size=30),
    st.builds(
        lambda first, payload, masked: frame(first, payload, masked=masked),
        st.sampled_from([0x82, 0x82, 0x82, 0x02, 0x00, 0x80, 0x89, 0x8A, 0x88, 0x81, 0xC2, 0x83]),
        st.binary(max_size=140),
        st.sampled_from([True, True, True, True, False]),
    ),
)


@given(parts=st.lists(FRAGMENTS_OF_CHAOS), cuts=st.lists(st.integers(0, 5_000)))
def test_garbage_never_raises_and_reads_the_same_however_it_is_cut(
    parts: list[bytes], cuts: list[int]
) -> None:
    at_once, in_pieces = framer(), framer()
    stream = b"".join(parts)
    frames = at_once.feed(stream)
    seen = []
    for piece in pieces(stream, cuts):
        seen += in_pieces.feed(piece)
        assert in_pieces.buffered <= 2 * LIMIT
        assert len(in_pieces.control) <= CONTROL_MAX_BYTES
    assert seen == frames
    assert (in_pieces.error is None) == (at_once.error is None)
    assert in_pieces.ended == at_once.ended


# Sending


@PEERS
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 70_000])
def test_what_is_wrapped_is_read_by_others(peer: Callable[[], Client], size: int) -> None:
    payload = b"x" * size
    assert (
        wrap_binary(payload) == binary_header(size) + payload == frame(0x82, payload, masked=False)
    )
    assert wrap_text(payload) == text_header(size) + payload == frame(0x81, payload, masked=False)
    client = peer()
    assert client.read(wrap_binary(payload)) == [("binary", payload)]
    assert client.read(wrap_text(payload)) == [("text", payload)]


# Parts


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_the_compiled_and_the_plain_unmasking_agree(data: bytes, mask: bytes) -> None:
    expected = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
    assert apply_mask(data, mask) == expected
    assert apply_mask_in_python(data, mask) == expected


def test_an_idle_framer_is_small() -> None:
    receiver = framer()
    receiver.feed(frame(0x82, b"hello") + frame(0x89))
    assert not hasattr(receiver, "__dict__")
    assert sys.getsizeof(receiver) + GC_HEADER_BYTES < 120


def test_nothing_that_is_received_reaches_a_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        framer().feed(frame(0x02, b"sec") + frame(0x80, b"ret") + frame(0x82, b"secret"))
        framer().feed(frame(0x88, b"\x03\xe8secret"))
        framer().feed(frame(0x83, b"secret"))
    assert caplog.records == []
