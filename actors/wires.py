"""The wire variants in use: which codec, which framing. A table, nothing else.

A connection has exactly one for its whole life; images are made once per variant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from broker.wire.codec import JSON, MSGPACK, Codec
from broker.wire.framing import Framer, LengthFramer, length_header
from broker.wire.websocket import WebSocketFramer, binary_header, text_header


@dataclass(frozen=True, slots=True, eq=False)
class Wire:
    """`header(n)` is what goes on the wire before a payload of n bytes."""

    index: int
    name: str
    codec: Codec
    header: Callable[[int], bytes]
    framer: Callable[[int], Framer]
    websocket: bool

    def wrap(self, payload: bytes) -> bytes:
        """A whole frame."""
        return self.header(len(payload)) + payload


def _websocket_binary(limit: int) -> Framer:
    return WebSocketFramer(False, limit)


def _websocket_text(limit: int) -> Framer:
    return WebSocketFramer(True, limit)


TCP_MSGPACK = Wire(0, "tcp-msgpack", MSGPACK, length_header, LengthFramer, False)
WS_MSGPACK = Wire(1, "ws-msgpack", MSGPACK, binary_header, _websocket_binary, True)
WS_JSON = Wire(2, "ws-json", JSON, text_header, _websocket_text, True)

WIRES = (TCP_MSGPACK, WS_MSGPACK, WS_JSON)
WEBSOCKET_WIRES = {wire.codec.name: wire for wire in WIRES if wire.websocket}
