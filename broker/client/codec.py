"""Frames as msgpack, and their framing on TCP. No I/O; knows nothing of what frames mean.

It uses the `msgpack` package where the broker uses another codec: each checks the other.
"""

from __future__ import annotations

from typing import Any

import msgpack  # type: ignore[import-untyped]

from broker.client.errors import BadAnswer
from broker.client.limits import FRAME_MAX_BYTES

Frame = dict[str, Any]

_HEADER_BYTES = 4


def pack(frame: Frame) -> bytes:
    """Encode a frame. Raises `TypeError`, `ValueError` for what msgpack cannot hold."""
    try:
        packed: bytes = msgpack.packb(frame)
    except OverflowError as error:
        raise ValueError(str(error)) from error
    return packed


def unpack(data: bytes) -> Frame:
    """Decode a frame. Raises `BadAnswer` if it is not one map in msgpack."""
    try:
        frame = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise BadAnswer(
            f"the broker sent {len(data)} bytes that are no msgpack: {error}"
        ) from error
    if not isinstance(frame, dict):
        raise BadAnswer(f"the broker sent a frame that is no map but {type(frame).__name__}")
    return frame


def wrap_length(payload: bytes) -> bytes:
    """A frame as TCP carries it: its length in four bytes, big-endian, before it."""
    return len(payload).to_bytes(_HEADER_BYTES, "big") + payload


class LengthReader:
    """Finds whole frames in the bytes of a TCP stream, however these were cut."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray) -> list[bytes]:
        """The frames completed by these bytes. Raises `BadAnswer` if one is too long to be one."""
        buffer = self._buffer
        buffer += data
        frames = []
        start = 0
        while len(buffer) - start >= _HEADER_BYTES:
            begin = start + _HEADER_BYTES
            length = int.from_bytes(buffer[start:begin], "big")
            if length > FRAME_MAX_BYTES:
                raise BadAnswer(f"the broker announced a frame of {length} bytes")
            if len(buffer) < begin + length:
                break
            start = begin + length
            frames.append(bytes(buffer[begin:start]))
        del buffer[:start]
        return frames
