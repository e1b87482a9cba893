"""The client's small parts: addresses, frames, pauses, the event buffer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from broker.client import BadAnswer, ClientClosed
from broker.client.address import Address
from broker.client.backoff import full_jitter
from broker.client.buffer import EventBuffer
from broker.client.codec import LengthReader, pack, unpack, wrap_length
from broker.client.model import OtherEvent

# Addresses


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("ws://h", Address(True, False, "h", 80, "/ws")),
        ("ws://h:7400/", Address(True, False, "h", 7400, "/ws")),
        ("wss://h/chat/ws?x=1", Address(True, True, "h", 443, "/chat/ws?x=1")),
        ("tcp://h", Address(False, False, "h", 7440, "")),
        ("tls://[::1]:99", Address(False, True, "::1", 99, "")),
    ],
)
def test_address_means_what_its_url_says(url: str, meant: Address) -> None:
    address = Address.parse(url)
    assert address == meant
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize("url", ["", "h:7400", "http://h", "ws://", "tcp://:7440", "ws://h:x"])
def test_no_address(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Address.parse(url)


# Frames

scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.binary()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)
frames = st.dictionaries(st.text(), values)


@given(frames)
def test_frames_mean_the_same_to_the_brokers_codec(frame: dict[str, Any]) -> None:
    assert msgspec.msgpack.decode(pack(frame)) == frame
    assert unpack(msgspec.msgpack.encode(frame)) == frame


@given(st.lists(st.binary(max_size=50)), st.data())
def test_frames_come_out_of_any_pieces(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(wrap_length, payloads))
    reader = LengthReader()
    found: list[bytes] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += reader.feed(stream[:size])
        stream = stream[size:]
    assert found == payloads


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_a_bad_answer(data: bytes) -> None:
    try:
        frame = unpack(data)
    except BadAnswer:
        return
    assert isinstance(frame, dict)


def test_what_msgpack_cannot_hold_is_the_callers_error() -> None:
    with pytest.raises(ValueError, match=r"."):
        pack({"n": 2**70})
    with pytest.raises(TypeError):
        pack({"n": object()})
    with pytest.raises(ValueError, match="surrogates"):
        pack({"s": "\ud800"})


# Pauses


@given(st.integers(0, 10_000))
def test_pause_is_anything_up_to_a_bound_that_doubles(attempt: int) -> None:
    bound = min(30.0, 0.25 * 2 ** min(attempt, 20))
    assert 0 <= full_jitter(attempt, base=0.25, cap=30) <= bound


# The event buffer


def other(number: int) -> OtherEvent:
    return OtherEvent(str(number), {})


async def test_buffer_gives_each_event_once_and_in_order() -> None:
    buffer = EventBuffer(3)
    for number in range(3):
        assert not buffer.full
        buffer.put(other(number))
    assert buffer.full
    buffer.offer(other(99))
    assert [await buffer.get() for _ in range(3)] == [other(0), other(1), other(2)]


async def test_buffer_tells_of_room_and_of_the_end() -> None:
    buffer = EventBuffer(1)
    buffer.put(other(0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(buffer.room)
        await trio.testing.wait_all_tasks_blocked()
        assert await buffer.get() == other(0)
    buffer.put(other(1))
    buffer.end(ClientClosed("over"))
    assert await buffer.get() == other(1)
    for _ in range(2):
        with pytest.raises(ClientClosed):
            await buffer.get()
