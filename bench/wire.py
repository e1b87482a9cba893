"""Bytes as the load client says and hears them: frames made, frames taken apart, marks to count by.

Written against docs/protocol.md with `msgpack`, never with the server's own codec, so that two
independent implementations check each other. No sockets here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Literal

import msgpack  # type: ignore[import-untyped]

try:
    from websockets.speedups import apply_mask
except ImportError:  # the library was installed without its C extension
    from websockets.utils import apply_mask

Transport = Literal["ws", "tcp"]

BODY_BYTES = 128
STAMP_DIGITS = 19
TAG_BYTES = 6
KEY_DIGITS = 12
SEND_ID_MAX = 2**32 - 1

MASK = b"\x5a\xc3\x17\x88"
"""One mask for all frames: servers have to undo it as any other, and making them stays cheap."""

OK_MARK = b"\xa1t\xa2ok"
"""`t: "ok"` as msgpack: each reply holds it once, and no body of ours ever does."""
MSG_MARK = b"\xa1t\xa3msg"

UPGRADE_REQUEST = (
    b"GET /ws HTTP/1.1\r\n"
    b"Host: bench\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: parley.msgpack.v1\r\n"
    b"\r\n"
)
UPGRADE_ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""What RFC 6455 derives from the key above (it is the RFC's own example)."""

CLOSE_FRAME = b"\x88\x82" + MASK + apply_mask(struct.pack(">H", 1000), MASK)


class ProtocolError(Exception):
    """The server said something that this client has no meaning for."""


def frame(payload: bytes, transport: Transport) -> bytes:
    """One command of a client: a masked binary WebSocket message, or length and payload."""
    if transport == "tcp":
        return len(payload).to_bytes(4, "big") + payload
    size = len(payload)
    if size < 126:
        head = struct.pack(">BB", 0x82, 0x80 | size)
    elif size < 65536:
        head = struct.pack(">BBH", 0x82, 0xFE, size)
    else:
        head = struct.pack(">BBQ", 0x82, 0xFF, size)
    return head + MASK + apply_mask(payload, MASK)


def command(fields: dict[str, Any], transport: Transport) -> bytes:
    """A command as one frame."""
    return frame(msgpack.packb(fields), transport)


def split(data: bytes, transport: Transport) -> tuple[list[bytes], bytes]:
    """The payloads of the whole frames at the start of `data`, and the bytes that are left.

    Pings and pongs are passed over. Raises `ProtocolError` when the server closes, masks or
    fragments: none of these belongs into a measurement.
    """
    parse = _tcp_frame if transport == "tcp" else _ws_frame
    payloads: list[bytes] = []
    at = 0
    while (found := parse(data, at)) is not None:
        payload, at = found
        if payload is not None:
            payloads.append(payload)
    return payloads, data[at:]


def _tcp_frame(data: bytes, at: int) -> tuple[bytes, int] | None:
    end = at + 4 + int.from_bytes(data[at : at + 4], "big")
    return (data[at + 4 : end], end) if len(data) >= max(end, at + 4) else None


def _ws_frame(data: bytes, at: int) -> tuple[bytes | None, int] | None:
    if len(data) < at + 2:
        return None
    opcode, size, start = data[at], data[at + 1], at + 2
    if size & 0x80:
        raise ProtocolError("the server masked a frame")
    if size >= 126:
        extra = 2 if size == 126 else 8
        size = int.from_bytes(data[start : start + extra], "big")
        start += extra
    end = start + size
    if len(data) < end or start > len(data):
        return None
    if opcode in (0x89, 0x8A):
        return None, end
    if opcode == 0x88:
        raise ProtocolError(f"the server closed: {data[start:end]!r}")
    if opcode not in (0x81, 0x82):
        raise ProtocolError(f"a frame that begins with {opcode:#x}")
    return data[start:end], end


def decode(payload: bytes) -> dict[str, Any]:
    """A reply or event. Raises `ProtocolError` if it is no map."""
    value = msgpack.unpackb(payload)
    if not isinstance(value, dict):
        raise ProtocolError(f"not a map: {payload[:60]!r}")
    return value


def tag(publisher: int) -> bytes:
    """How the bodies of a publisher begin; always `TAG_BYTES` long."""
    return b"p%04d." % publisher


def stamp(now_ns: int) -> bytes:
    """A time as bodies carry it after the tag; always `STAMP_DIGITS` long."""
    return b"%019d" % now_ns


Publish = Callable[[int, bytes], bytes]
"""(number of the message, `stamp` of now) → what to write to the socket."""


def body_parts(publisher: int) -> tuple[bytes, bytes]:
    """What stands before and after the stamp in a body of `BODY_BYTES`."""
    head = tag(publisher)
    return head, b"x" * (BODY_BYTES - len(head) - STAMP_DIGITS)


def parley_publish(
    to: dict[str, Any], publisher: int, transport: Transport, keys_from: int = 0
) -> Publish:
    """Makes `send` commands of constant size; `to` is `{"conv": …}` or `{"to": {"user": …}}`."""
    assert len(to) == 1
    before, after = body_parts(publisher)
    a = b"\x86\xa1t\xa4send\xa2id\xce"
    b = msgpack.packb(to)[1:] + b"\xa3key" + bytes([0xA0 | KEY_DIGITS])
    c = b"\xa4kind\xa4text\xa4body" + b"\xd9" + bytes([BODY_BYTES]) + before
    size = len(a) + 4 + len(b) + KEY_DIGITS + len(c) + STAMP_DIGITS + len(after)
    number = struct.Struct(">I").pack
    if transport == "tcp":
        prefix = struct.pack(">I", size) + a
        return lambda n, now: (
            b"%b%b%b%012d%b%b%b" % (prefix, number(n), b, keys_from + n, c, now, after)
        )
    head = frame(bytes(size), "ws")[:-size]
    return lambda n, now: (
        head
        + apply_mask(b"%b%b%b%012d%b%b%b" % (a, number(n), b, keys_from + n, c, now, after), MASK)
    )


def nats_publish(subject: bytes, publisher: int) -> Publish:
    """Makes PUB commands of the NATS protocol."""
    before, after = body_parts(publisher)
    head = b"PUB %b %d\r\n%b" % (subject, BODY_BYTES, before)
    after += b"\r\n"
    return lambda n, now: b"%b%b%b" % (head, now, after)
