"""WebSocket messages as frames, and frames as WebSocket messages. No I/O.

Whole messages in one frame, pings, pongs and good closes are taken apart here, because the library
costs six times as much; everything else, good or bad, is judged by the `websockets` library. A
connection that needed it once stays with it: where the library stands between two frames is its own
business.
"""

from __future__ import annotations

import logging
from struct import Struct

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from broker.wire.errors import Code, FrameError

try:
    from websockets.speedups import apply_mask as apply_mask
except ImportError:  # a platform without the compiled wheel
    from websockets.utils import apply_mask as apply_mask

SHORT_MAX_BYTES = 125
"""The longest payload whose length fits the second byte; also of any control frame."""
HEADER_MAX_BYTES = 14
REASON_MAX_BYTES = SHORT_MAX_BYTES - 2

FIN = 0x80
MASKED = 0x80
TEXT = FIN | Opcode.TEXT
BINARY = FIN | Opcode.BINARY
CLOSE = FIN | Opcode.CLOSE
PING = FIN | Opcode.PING
PONG = FIN | Opcode.PONG

QUIET = logging.getLogger("parley.websocket")
"""For the library: at debug level it would log what messages and headers contain, tokens too."""
QUIET.setLevel(logging.WARNING)

_pack_medium = Struct(">BBH").pack
_pack_long = Struct(">BBQ").pack


def _short_headers(first: int) -> tuple[bytes, ...]:
    return tuple(bytes((first, size)) for size in range(SHORT_MAX_BYTES + 1))


_TEXT_HEADERS = _short_headers(TEXT)
_BINARY_HEADERS = _short_headers(BINARY)


def text_header(size: int) -> bytes:
    """What goes before the payload of a text message of `size` bytes, server to client."""
    if size <= SHORT_MAX_BYTES:
        return _TEXT_HEADERS[size]
    return _pack_medium(TEXT, 126, size) if size < 65536 else _pack_long(TEXT, 127, size)


def binary_header(size: int) -> bytes:
    """What goes before the payload of a binary message of `size` bytes, server to client."""
    if size <= SHORT_MAX_BYTES:
        return _BINARY_HEADERS[size]
    return _pack_medium(BINARY, 126, size) if size < 65536 else _pack_long(BINARY, 127, size)


def wrap_text(payload: bytes) -> bytes:
    """A whole text message."""
    return text_header(len(payload)) + payload


def wrap_binary(payload: bytes) -> bytes:
    """A whole binary message."""
    return binary_header(len(payload)) + payload


def close_frame(status: int, reason: str) -> bytes:
    """The frame that closes a connection; the reason is cut where a character ends."""
    fitting = reason.encode(errors="replace")[:REASON_MAX_BYTES].decode(errors="ignore").encode()
    return bytes((CLOSE, 2 + len(fitting))) + status.to_bytes(2, "big") + fitting


class _Library:
    """The library's parser for the rest of a connection, and the message that is not whole yet."""

    __slots__ = ("_expected", "_message", "_protocol", "closed")

    def __init__(self, first: int, limit: int) -> None:
        self.closed = False
        self._expected = Opcode(first & ~FIN)
        self._message = bytearray()
        self._protocol = ServerProtocol(state=State.OPEN, max_size=limit, logger=QUIET)

    @property
    def buffered(self) -> int:
        return len(self._message) + len(self._protocol.reader.buffer)

    def receive(self, data: bytes, frames: list[bytes]) -> bytes:
        """Append whole messages to `frames`; returns the newest control reply. Raises `FrameError`.

        What was appended before the error is good.
        """
        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._take(event, frames)
        if (fault := protocol.parser_exc) is not None:
            code = Code.TOO_LARGE if isinstance(fault, PayloadTooBig) else Code.BAD_FRAME
            raise FrameError(f"broken WebSocket message: {fault}", code)
        return next((reply for reply in reversed(protocol.data_to_send()) if reply), b"")

    def _take(self, part: Frame, frames: list[bytes]) -> None:
        match part.opcode:
            case Opcode.PING | Opcode.PONG:
                return
            case Opcode.CLOSE:
                self.closed = True
                return
            case Opcode.TEXT | Opcode.BINARY if part.opcode is not self._expected:
                raise FrameError(
                    f"a {part.opcode.name.lower()} message; "
                    f"this connection speaks {self._expected.name.lower()} messages"
                )
        self._message += part.data
        if part.fin:
            frames.append(bytes(self._message))
            self._message = bytearray()


class WebSocketFramer:
    """The messages of one client, after the handshake."""

    __slots__ = ("_first", "_library", "_limit", "_need", "_partial", "control", "ended", "error")

    def __init__(self, text: bool, limit: int) -> None:
        """Messages are text (JSON) or else binary, of at most `limit` bytes."""
        self.error: FrameError | None = None
        self.control = b""
        self.ended = False
        self._first = TEXT if text else BINARY
        self._limit = limit
        self._partial: bytearray | None = None
        self._need = 0
        self._library: _Library | None = None

    @property
    def buffered(self) -> int:
        return len(self._partial or b"") + (self._library.buffered if self._library else 0)

    def feed(self, data: bytes) -> list[bytes]:
        frames: list[bytes] = []
        if self.error is not None or self.ended:
            return frames
        if self._library is not None:
            self._feed_library(self._library, data, frames)
            return frames
        partial = self._partial
        if partial is not None:
            partial += data
            if len(partial) < self._need:
                return frames
            data = bytes(partial)
            self._partial = None
        end = len(data)
        position = 0
        while (position := self._take_ordinary(data, position, frames)) < end:
            need = self._frame_bytes(data[position : position + HEADER_MAX_BYTES])
            if position + need > end:
                # Collected in place, so that a frame in many pieces is copied once.
                self._partial = bytearray(data[position:])
                self._need = need
                break
            if need == 0 or not self._take_rare(data[position : position + need], frames):
                self._library = _Library(self._first, self._limit)
                self._feed_library(self._library, data[position:], frames)
                break
            if self.ended:
                break
            position += need
        return frames

    def _take_ordinary(self, data: bytes, position: int, frames: list[bytes]) -> int:
        """Append what the whole frames of up to 64 KiB carry; returns where the first other is.

        This loop is the cost of receiving a message: no call in it but the unmasking.
        """
        first = self._first
        limit = self._limit
        end = len(data)
        while end - position >= 6 and data[position] == first:
            size = data[position + 1] - MASKED
            start = position + 6
            if size == 126:
                size = data[position + 2] << 8 | data[position + 3]
                start = position + 8
            elif size < 0 or size == 127:
                break
            stop = start + size
            if stop > end or size > limit:
                break
            frames.append(apply_mask(data[start:stop], data[start - 4 : start]))
            position = stop
        return position

    def _frame_bytes(self, head: bytes) -> int:
        """How many bytes the frame that begins so must have, as far as it shows already.

        0: it is for the library, which will know what is wrong with it, if anything.
        """
        if len(head) < 2:
            return 2
        size = head[1] - MASKED
        if head[0] in (PING, PONG, CLOSE):
            return 6 + size if 0 <= size <= SHORT_MAX_BYTES else 0
        if head[0] != self._first or size < 0:
            return 0
        start = _payload_start(size)
        if len(head) < start - 4:
            return start
        if size > SHORT_MAX_BYTES:
            size = int.from_bytes(head[2 : start - 4], "big")
        return start + size if size <= self._limit else 0

    def _take_rare(self, frame: bytes, frames: list[bytes]) -> bool:
        """A whole frame that is a long message, a ping, a pong or a close; False: a bad close."""
        start = _payload_start(frame[1] - MASKED)
        payload = apply_mask(frame[start:], frame[start - 4 : start])
        if frame[0] == PING:
            self.control = bytes((PONG, len(payload))) + payload
        elif frame[0] == CLOSE:
            try:
                Close.parse(payload)
            except (ProtocolError, UnicodeDecodeError):
                return False
            self.control = bytes((CLOSE, len(payload))) + payload
            self.ended = True
        elif frame[0] != PONG:
            frames.append(payload)
        return True

    def _feed_library(self, library: _Library, data: bytes, frames: list[bytes]) -> None:
        try:
            self.control = library.receive(data, frames) or self.control
        except FrameError as error:
            self.error = error
        self.ended = library.closed
        if self.error is not None or self.ended:
            self._library = None


def _payload_start(size: int) -> int:
    """Where the payload of a masked frame begins; `size` as the second byte gives it."""
    return 6 if size <= SHORT_MAX_BYTES else 8 if size == 126 else HEADER_MAX_BYTES
