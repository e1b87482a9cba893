"""A byte stream as frames: what every framing offers, and the framing of TCP.

No I/O and no codec: bytes in, whole frames out, in order. A framer holds nothing but the unfinished
frame, and refuses one that is too long as soon as its header says so.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Protocol

from broker.wire.errors import Code, FrameError

HEADER_BYTES = 4


class Framer(Protocol):
    """The receiving half of one connection."""

    error: FrameError | None
    """Set once the stream is broken. Frames returned before it are good; nothing is read after."""

    control: bytes
    """Bytes to send now (a pong, the echo of a close). The reader takes them and sets b""; a newer
    reply replaces one that was not taken, so that no peer can make them pile up."""

    ended: bool
    """The peer closed the protocol in order; nothing is read after."""

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are whole with these bytes. Never raises; see `error`."""

    @property
    def buffered(self) -> int:
        """Bytes held of a frame that is not whole yet."""


length_header: Callable[[int], bytes] = Struct(">I").pack
"""What goes on a TCP connection before a payload of so many bytes."""


def wrap_length(payload: bytes) -> bytes:
    """A whole TCP frame."""
    return length_header(len(payload)) + payload


def too_large(size: int, limit: int) -> FrameError:
    """The error for a frame whose header promises more bytes than are allowed."""
    return FrameError(f"a frame of {size} bytes; the limit is {limit}", Code.TOO_LARGE)


class LengthFramer:
    """Each frame after its length, 4 bytes, big-endian.

    An empty frame is let through: what a frame must contain is the codec's to say.
    """

    __slots__ = ("_limit", "_need", "_partial", "control", "ended", "error")

    def __init__(self, limit: int) -> None:
        """`limit`: bytes of the longest payload."""
        self.error: FrameError | None = None
        self.control = b""
        self.ended = False
        self._limit = limit
        self._partial: bytearray | None = None
        self._need = HEADER_BYTES

    @property
    def buffered(self) -> int:
        return len(self._partial or b"")

    def feed(self, data: bytes) -> list[bytes]:
        frames: list[bytes] = []
        partial = self._partial
        if self.error is not None:
            return frames
        if partial is not None:
            partial += data
            if len(partial) < self._need:
                return frames
            data = bytes(partial)
            self._partial = None
        position = 0
        end = len(data)
        need = HEADER_BYTES
        while end - position >= HEADER_BYTES:
            start = position + HEADER_BYTES
            size = int.from_bytes(data[position:start], "big")
            if size > self._limit:
                self.error = too_large(size, self._limit)
                return frames
            stop = start + size
            if stop > end:
                need += size
                break
            frames.append(data[start:stop])
            position = stop
        if position < end:
            # Collected in place and looked at again when whole, so that a frame that comes in many
            # pieces is copied once, not once a piece.
            self._partial = bytearray(data[position:])
            self._need = need
        return frames
