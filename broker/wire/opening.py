"""What a new connection on the HTTP port is: decided from its first bytes, without I/O.

A request for `/ws` with an upgrade is answered here, as strictly as the `websockets` library does;
every other request is somebody else's, who gets the bytes back untouched. Waits for the whole head
in any case, so that the caller's deadline covers it. Never logs what a head contains.

The library takes 40 to 50 µs for a handshake, so the ordinary ones are answered without it: those
in which nothing is wrong, missing, repeated or rare. Nothing is ever refused on that way: what is
not beyond doubt is judged by the library, and the answer is always what the library's would be.
"""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from hashlib import sha1
from http import HTTPStatus

from websockets.exceptions import NegotiationError
from websockets.http11 import MAX_LINE_LENGTH, MAX_NUM_HEADERS, Request
from websockets.server import ServerProtocol
from websockets.typing import Origin, Subprotocol
from websockets.utils import GUID

from broker.wire.codec import JSON, MSGPACK, Codec
from broker.wire.websocket import QUIET

HEAD_MAX_BYTES = 16 * 1024
WEBSOCKET_PATH = b"/ws"
SUBPROTOCOLS: dict[str, Codec] = {"parley.msgpack.v1": MSGPACK, "parley.json.v1": JSON}
"""Which codec each one means; a client that asks for none gets JSON."""

# A lone LF ends a line for many servers, so here it must too: the head would never end otherwise.
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_END_MAX_BYTES = 3
_UPGRADE = re.compile(rb"(?im)^upgrade:.*websocket")

_ORDINARY_HEAD = re.compile(
    rb"GET /ws(?:\?[!-~]*+)? HTTP/1\.1\r\n"
    rb"(?:[-!#$%&'*+.^_`|~0-9A-Za-z]++:[\t -~]*+\r\n)++"
    rb"\r\n"
)
"""Tokens and field values of RFC 9110, but for obs-text; possessive, so that it is linear."""
_ORDINARY_CONNECTION = frozenset({b"upgrade", b"keep-alive, upgrade"})
_ORDINARY_KEY = re.compile(rb"[+/0-9A-Za-z]{22}==")
_HAS_BODY = frozenset({b"content-length", b"transfer-encoding"})
_GUID = GUID.encode()
_PROTOCOL_FIELDS: dict[bytes | None, tuple[Codec, bytes]] = {
    None: (JSON, b""),
    **{
        name.encode(): (codec, f"Sec-WebSocket-Protocol: {name}\r\n".encode())
        for name, codec in SUBPROTOCOLS.items()
    },
}


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """Plain HTTP: hand the connection to the HTTP server, with `data` as its first bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Upgraded:
    """A WebSocket from now on: send `response`, then treat `rest` as its first bytes."""

    response: bytes
    codec: Codec
    rest: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """Send `response`, a complete HTTP answer, and close."""

    response: bytes


class HttpOpening:
    """Feed it what is received until it answers; then it has done its work."""

    __slots__ = ("_data", "_origins")

    def __init__(self, allowed_origins: frozenset[str] | None = None) -> None:
        """`allowed_origins`: which sites' pages may connect; None: any.

        Clients that are no browsers send no origin, and are always let through.
        """
        self._data = bytearray()
        self._origins = allowed_origins

    @property
    def buffered(self) -> int:
        """Bytes of an unfinished head."""
        return len(self._data)

    def feed(self, data: bytes) -> HttpRequest | Upgraded | Refused | None:
        """What the connection is; None while its head is unfinished. Never raises."""
        seen = max(0, len(self._data) - _END_MAX_BYTES)
        self._data += data
        end = _END_OF_HEAD.search(self._data, seen)
        if (end.end() if end else len(self._data)) > HEAD_MAX_BYTES:
            self._data = bytearray()
            return _refused(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"The head of the request is longer than {HEAD_MAX_BYTES} bytes.",
            )
        if end is None:
            return None
        received = bytes(self._data)
        self._data = bytearray()
        head = received[: end.end()]
        ordinary = _accept_ordinary(head, received[end.end() :], self._origins)
        if ordinary is not None:
            return ordinary
        if not _asks_for_websocket(head):
            return HttpRequest(received)
        return _upgrade(head, received[end.end() :], self._origins)


def _asks_for_websocket(head: bytes) -> bool:
    line, _, fields = head.partition(b"\n")
    words = line.split(b" ")
    return (
        len(words) > 1
        and words[1].partition(b"?")[0] == WEBSOCKET_PATH
        and _UPGRADE.search(fields) is not None
    )


def _accept_ordinary(head: bytes, rest: bytes, origins: frozenset[str] | None) -> Upgraded | None:
    """What the library would answer to this head, if that is beyond doubt; or else None."""
    fields = _ordinary_fields(head)
    if (
        fields is None
        or b"host" not in fields
        or fields.get(b"upgrade", b"").lower() != b"websocket"
        or fields.get(b"connection", b"").lower() not in _ORDINARY_CONNECTION
        or fields.get(b"sec-websocket-version") != b"13"
        or not _HAS_BODY.isdisjoint(fields)
    ):
        return None
    key = fields.get(b"sec-websocket-key", b"")
    protocol = _PROTOCOL_FIELDS.get(fields.get(b"sec-websocket-protocol"))
    if protocol is None or not _ORDINARY_KEY.fullmatch(key):
        return None
    origin = fields.get(b"origin")
    if origins is not None and origin is not None and origin.decode("ascii") not in origins:
        return None
    codec, protocol_field = protocol
    response = (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Date: %b\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n"
        b"%b\r\n"
    ) % (_date(int(time.time())), b64encode(sha1(key + _GUID).digest()), protocol_field)
    return Upgraded(response, codec, rest)


def _ordinary_fields(head: bytes) -> dict[bytes, bytes] | None:
    """The fields by lower-case name; None if any is repeated or not clearly within the rules."""
    if len(head) > MAX_LINE_LENGTH or not _ORDINARY_HEAD.fullmatch(head):
        return None
    lines = head.split(b"\r\n")[1:-2]
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip(b" \t")
    return fields if len(fields) == len(lines) <= MAX_NUM_HEADERS else None


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


class _Handshake(ServerProtocol):
    # Handing in a function instead would tie the object into a cycle with its own method.
    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        """The first that is known, in the client's order of preference."""
        for name in subprotocols:
            if name in SUBPROTOCOLS:
                return name
        if subprotocols:
            raise NegotiationError(f"no known subprotocol; there are {', '.join(SUBPROTOCOLS)}")
        return None


def _upgrade(head: bytes, rest: bytes, origins: frozenset[str] | None) -> Upgraded | Refused:
    protocol = _Handshake(
        origins=None if origins is None else [None, *map(Origin, origins)],
        extensions=None,
        logger=QUIET,
    )
    try:
        protocol.receive_data(head)
        for request in protocol.events_received():
            if isinstance(request, Request):
                protocol.send_response(protocol.accept(request))
        response = b"".join(protocol.data_to_send())
    finally:
        # The suspended parser and the protocol hold each other, and with them the whole request.
        protocol.parser.close()
    if protocol.handshake_exc is None:
        return Upgraded(response, SUBPROTOCOLS.get(protocol.subprotocol or "", JSON), rest)
    if response:
        return Refused(response)
    cause = protocol.handshake_exc.__cause__ or protocol.handshake_exc
    return _refused(HTTPStatus.BAD_REQUEST, f"Not an HTTP request: {cause}.")


def _refused(status: HTTPStatus, text: str) -> Refused:
    body = text.encode() + b"\n"
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        "Connection: close\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        "\r\n"
    )
    return Refused(head.encode() + body)
