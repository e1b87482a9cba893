"""A TCP stream cut anywhere gives the frames that were put in, whole and in order."""

from __future__ import annotations

import struct
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.wire.errors import Code
from broker.wire.framing import Framer, LengthFramer, length_header, wrap_length

LIMIT = 1_000
GC_HEADER_BYTES = 16


def packed(payload: bytes) -> bytes:
    """The frame as another implementation would write it."""
    return struct.pack(">I", len(payload)) + payload


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    borders = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[a:b] for a, b in pairwise(borders)]


def feed_all(framer: Framer, parts: list[bytes]) -> list[bytes]:
    return [frame for part in parts for frame in framer.feed(part)]


@given(st.lists(st.binary(max_size=300)), st.lists(st.integers(0, 10_000)))
def test_any_split_of_the_stream_gives_the_same_frames(
    payloads: list[bytes], cuts: list[int]
) -> None:
    framer = LengthFramer(LIMIT)
    stream = b"".join(map(packed, payloads))
    assert feed_all(framer, pieces(stream, cuts)) == payloads
    assert framer.error is None
    assert framer.buffered == 0


def test_a_frame_is_kept_until_it_is_whole() -> None:
    framer = LengthFramer(LIMIT)
    frame = packed(b"hello")
    for count in range(1, len(frame)):
        assert framer.feed(frame[count - 1 : count]) == []
        assert framer.buffered == count
    assert framer.feed(frame[-1:] + packed(b"again") + frame[:2]) == [b"hello", b"again"]
    assert framer.buffered == 2


def test_a_frame_in_many_pieces_is_collected_in_place() -> None:
    framer = LengthFramer(LIMIT)
    framer.feed(packed(b"x" * 100)[:-50])
    collected = framer._partial
    for _ in range(49):
        framer.feed(b"x")
        assert framer._partial is collected
    assert framer.feed(b"x") == [b"x" * 100]
    assert framer._partial is None


def test_an_empty_frame_is_for_the_codec_to_judge() -> None:
    assert LengthFramer(LIMIT).feed(packed(b"")) == [b""]


def test_a_frame_may_fill_the_limit() -> None:
    assert LengthFramer(LIMIT).feed(packed(b"x" * LIMIT)) == [b"x" * LIMIT]


@pytest.mark.parametrize("size", [LIMIT + 1, 2**31, 2**32 - 1])
def test_a_frame_over_the_limit_is_refused_by_its_header_alone(size: int) -> None:
    framer = LengthFramer(LIMIT)
    assert framer.feed(packed(b"good") + struct.pack(">I", size)) == [b"good"]
    assert framer.error is not None
    assert framer.error.code is Code.TOO_LARGE
    assert str(size) in framer.error.message
    assert str(LIMIT) in framer.error.message
    assert framer.buffered == 0


def test_nothing_is_read_after_an_error() -> None:
    framer = LengthFramer(LIMIT)
    framer.feed(b"\xff\xff\xff\xff")
    assert framer.feed(packed(b"late")) == []
    assert framer.buffered == 0


@given(st.lists(st.binary(max_size=100)))
def test_garbage_never_raises_and_is_never_hoarded(parts: list[bytes]) -> None:
    framer = LengthFramer(LIMIT)
    for part in parts:
        framer.feed(part)
        assert framer.buffered <= LIMIT + 4


@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000])
def test_frames_are_wrapped_as_others_read_them(size: int) -> None:
    payload = b"x" * size
    assert wrap_length(payload) == packed(payload) == length_header(size) + payload


def test_an_idle_framer_is_small() -> None:
    framer = LengthFramer(LIMIT)
    framer.feed(packed(b"hello"))
    assert not hasattr(framer, "__dict__")
    assert sys.getsizeof(framer) + GC_HEADER_BYTES < 120
