"""A connection on the HTTP port says in its head what it is, and is answered strictly.

The WebSocket clients are those of `websockets` and `wsproto`, both without I/O.
"""

from __future__ import annotations

import gc
import logging
import time
from email.utils import formatdate
from unittest.mock import patch

import pytest
import wsproto.events
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.http11 import Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri
from wsproto import ConnectionType, WSConnection

from broker.wire import opening as module
from broker.wire.codec import JSON, MSGPACK, Codec
from broker.wire.opening import (
    HEAD_MAX_BYTES,
    HttpOpening,
    HttpRequest,
    Refused,
    Upgraded,
)
from tests.broker.wire.test_framing import pieces

Outcome = HttpRequest | Upgraded | Refused | None

FIELDS = {
    "Host": "chat.example",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
"""The answer to that key, from RFC 6455."""


def request(
    changes: dict[str, str | None] | None = None, *, line: str = "GET /ws HTTP/1.1"
) -> bytes:
    """A browser's upgrade, with some fields changed, or left out where None."""
    fields = {name: value for name, value in {**FIELDS, **(changes or {})}.items() if value}
    head = [line, *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*head, "", ""]).encode()


def open_with(data: bytes, origins: frozenset[str] | None = None) -> Outcome:
    return HttpOpening(origins).feed(data)


def status_of(outcome: Outcome) -> int:
    assert isinstance(outcome, Refused)
    return int(outcome.response.split(b" ")[1])


# WebSocket


@pytest.mark.parametrize(
    ("asked", "codec", "answered"),
    [
        (None, JSON, None),
        ("parley.msgpack.v1", MSGPACK, b"parley.msgpack.v1"),
        ("parley.json.v1", JSON, b"parley.json.v1"),
        ("parley.json.v1, parley.msgpack.v1", JSON, b"parley.json.v1"),
        ("parley.msgpack.v1, parley.json.v1", MSGPACK, b"parley.msgpack.v1"),
        ("parley.msgpack.v9, parley.msgpack.v1", MSGPACK, b"parley.msgpack.v1"),
    ],
)
def test_the_clients_first_known_subprotocol_is_taken(
    asked: str | None, codec: Codec, answered: bytes | None
) -> None:
    outcome = open_with(request({"Sec-WebSocket-Protocol": asked}))
    assert isinstance(outcome, Upgraded)
    assert outcome.codec is codec
    assert outcome.response.startswith(b"HTTP/1.1 101 ")
    assert outcome.response.endswith(b"\r\n\r\n")
    assert ACCEPT in outcome.response
    if answered is None:
        assert b"Sec-WebSocket-Protocol" not in outcome.response
    else:
        assert b"Sec-WebSocket-Protocol: " + answered + b"\r\n" in outcome.response


def test_unknown_subprotocols_are_refused_with_the_known_ones_named() -> None:
    outcome = open_with(request({"Sec-WebSocket-Protocol": "mqtt"}))
    assert status_of(outcome) == 400
    assert isinstance(outcome, Refused)
    assert b"parley.msgpack.v1, parley.json.v1" in outcome.response


@pytest.mark.parametrize("asked", [None, "parley.msgpack.v1"])
def test_the_client_of_websockets_is_content(asked: str | None) -> None:
    client = ClientProtocol(
        parse_uri("ws://chat.example/ws?from=test"),
        subprotocols=[Subprotocol(asked)] if asked else None,
    )
    client.send_request(client.connect())
    outcome = open_with(b"".join(client.data_to_send()))
    assert isinstance(outcome, Upgraded)
    client.receive_data(outcome.response)
    (response,) = client.events_received()
    assert isinstance(response, Response)
    assert client.handshake_exc is None
    assert client.state is State.OPEN
    assert client.subprotocol == asked


@pytest.mark.parametrize("asked", [None, "parley.json.v1"])
def test_the_client_of_wsproto_is_content(asked: str | None) -> None:
    client = WSConnection(ConnectionType.CLIENT)
    outcome = open_with(
        client.send(
            wsproto.events.Request(
                host="chat.example", target="/ws", subprotocols=[asked] if asked else []
            )
        )
    )
    assert isinstance(outcome, Upgraded)
    client.receive_data(outcome.response)
    (accepted,) = client.events()
    assert isinstance(accepted, wsproto.events.AcceptConnection)
    assert accepted.subprotocol == asked


def test_compression_is_offered_in_vain() -> None:
    offer = "permessage-deflate; client_max_window_bits"
    outcome = open_with(request({"Sec-WebSocket-Extensions": offer}))
    assert isinstance(outcome, Upgraded)
    assert b"Extensions" not in outcome.response


@given(rest=st.binary(max_size=50), cuts=st.lists(st.integers(0, 5_000)))
def test_however_the_head_is_cut_nothing_behind_it_is_lost(rest: bytes, cuts: list[int]) -> None:
    opening = HttpOpening()
    parts = pieces(request() + rest, cuts)
    outcome = None
    while outcome is None:
        outcome = opening.feed(parts.pop(0))
    assert isinstance(outcome, Upgraded)
    assert outcome.rest + b"".join(parts) == rest
    assert opening.buffered == 0


@pytest.mark.parametrize(
    ("changes", "line", "status"),
    [
        ({"Connection": None}, "GET /ws HTTP/1.1", 426),
        ({"Connection": "keep-alive"}, "GET /ws HTTP/1.1", 426),
        ({"Upgrade": "websocket, h2c"}, "GET /ws HTTP/1.1", 426),
        ({"Sec-WebSocket-Key": None}, "GET /ws HTTP/1.1", 400),
        ({"Sec-WebSocket-Key": "short"}, "GET /ws HTTP/1.1", 400),
        ({"Sec-WebSocket-Key": "!" * 24}, "GET /ws HTTP/1.1", 400),
        ({"Sec-WebSocket-Key": "a\r\nSec-WebSocket-Key: b"}, "GET /ws HTTP/1.1", 400),
        ({"Sec-WebSocket-Version": None}, "GET /ws HTTP/1.1", 400),
        ({"Sec-WebSocket-Version": "8"}, "GET /ws HTTP/1.1", 400),
        ({"Sec-WebSocket-Protocol": ","}, "GET /ws HTTP/1.1", 400),
        ({"Content-Length": "5"}, "GET /ws HTTP/1.1", 400),
        ({"Transfer-Encoding": "chunked"}, "GET /ws HTTP/1.1", 400),
        ({"Bad name": "x"}, "GET /ws HTTP/1.1", 400),
        ({"Nul": "\0"}, "GET /ws HTTP/1.1", 400),
        ({}, "GET /ws HTTP/2.0", 400),
        ({}, "GET /ws?é HTTP/1.1", 400),
        ({}, "POST /ws HTTP/1.1", 405),
        ({}, "GET /ws HTTP/1.0", 505),
        ({"Long": "x" * 9_000}, "GET /ws HTTP/1.1", 431),
        ({}, f"GET /ws?{'x' * 9_000} HTTP/1.1", 414),
    ],
)
def test_a_bad_handshake_gets_a_complete_http_answer(
    changes: dict[str, str | None], line: str, status: int
) -> None:
    outcome = open_with(request(changes, line=line))
    assert status_of(outcome) == status
    assert isinstance(outcome, Refused)
    head, _, body = outcome.response.partition(b"\r\n\r\n")
    assert b"Connection: close" in head
    assert b"Content-Length: %d" % len(body) in head
    assert body


def test_a_handshake_with_bare_line_feeds_is_answered_too() -> None:
    assert status_of(open_with(request().replace(b"\r\n", b"\n"))) == 400


# Origins

OURS = frozenset({"https://chat.example"})


@pytest.mark.parametrize("origin", ["https://chat.example", None])
def test_our_own_pages_and_clients_without_pages_may_connect(origin: str | None) -> None:
    assert isinstance(open_with(request({"Origin": origin}), OURS), Upgraded)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://chat.example.evil", "http://chat.example"]
)
def test_pages_of_others_may_not(origin: str) -> None:
    assert status_of(open_with(request({"Origin": origin}), OURS)) == 403
    assert isinstance(open_with(request({"Origin": origin})), Upgraded)


# With the library and without it


LOAD_CLIENT = request({"Host": "bench", "Sec-WebSocket-Protocol": "parley.msgpack.v1"})
BROWSER = (
    b"GET /ws?from=page HTTP/1.1\r\n"
    b"Host: chat.example:7400\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0\r\n"
    b"Accept: */*\r\n"
    b"Accept-Language: en-US,en;q=0.5\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Origin: https://chat.example\r\n"
    b"Sec-WebSocket-Protocol: parley.json.v1\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Connection: keep-alive, Upgrade\r\n"
    b"Cookie: theme=dark; lang=en\r\n"
    b"Sec-Fetch-Mode: websocket\r\n"
    b"Pragma: no-cache\r\n"
    b"Upgrade: websocket\r\n"
    b"\r\n"
)
PROXY = request({"Connection": "upgrade", "Upgrade": "WebSocket", "X-Forwarded-For": "10.0.0.1"})

ODD_FIELDS = [
    "Host: other.example",
    "Connection: close",
    "Connection: Upgrade",
    "Upgrade: h2c",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 8",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Protocol: parley.json.v1",
    "Sec-WebSocket-Protocol: mqtt, parley.msgpack.v1",
    "Sec-WebSocket-Protocol:",
    "Sec-WebSocket-Extensions: permessage-deflate",
    "Origin: https://chat.example",
    "Origin: https://evil.example",
    "Content-Length: 0",
    "Content-Length: 5",
    "Transfer-Encoding: chunked",
    "Expect: 100-continue",
    "X-Empty:",
    "X-Foreign: caf\u00e9",
    "X-Folded: one\r\n two",
    "X-Nul: \0",
    "No-Colon",
    "Bad Name: x",
    ": nameless",
    "X-Long: " + "x" * 8_190,
    "\r\n".join(f"X-{number}: x" for number in range(130)),
]
VALUES = {
    "Connection": ["Upgrade", "upgrade", "keep-alive, Upgrade", "Upgrade,keep-alive", "up grade"],
    "Upgrade": ["websocket", "WebSocket", "websocket, h2c", "websocket/13"],
    "Sec-WebSocket-Version": ["13", "013", "8", "13, 8", ""],
    "Sec-WebSocket-Key": [
        "dGhlIHNhbXBsZSBub25jZQ==",
        "dGhlIHNhbXBsZSBub25jZR==",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQA=",
        "dGhlIHNhbXBsZSBub25j_Q==",
        "====dGhlIHNhbXBsZSBub25jZQ==",
        "",
    ],
    "Host": ["chat.example", "", "a b"],
}
LINES = st.sampled_from(
    ["GET /ws HTTP/1.1"] * 6
    + ["GET /ws? HTTP/1.1", "GET /ws?a=b&c HTTP/1.1", "GET /ws?\u00e9 HTTP/1.1"]
    + ["get /ws HTTP/1.1", "POST /ws HTTP/1.1", "GET /ws HTTP/1.0", "GET /ws HTTP/1.1 "]
    + ["GET  /ws HTTP/1.1", "GET /ws", "GET /ws/ HTTP/1.1", "GET /ws#a HTTP/1.1", ""]
)
SPACE = st.sampled_from(["", " ", "  ", "\t", " \t "])


def any_case(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from([name, name, name.lower(), name.upper(), name.swapcase()])


@st.composite
def ordinary_heads(draw: st.DrawFn) -> bytes:
    """Upgrades with nothing wrong, in any order, case and spacing."""
    names = draw(st.permutations([*FIELDS, "User-Agent", "X-Request"]))
    lines = []
    for name in names:
        value = FIELDS.get(name) or draw(st.text("!~ az09,;=/", max_size=20))
        if name == "Connection":
            value = draw(st.sampled_from(["Upgrade", "upgrade", "keep-alive, Upgrade"]))
        lines.append(f"{draw(any_case(name))}:{draw(SPACE)}{value}{draw(SPACE)}")
    if draw(st.booleans()):
        protocol = draw(st.sampled_from(["parley.json.v1", "parley.msgpack.v1"]))
        lines.append(f"{draw(any_case('Sec-WebSocket-Protocol'))}: {protocol}")
    return "\r\n".join(["GET /ws HTTP/1.1", *lines, "", ""]).encode()


@st.composite
def odd_heads(draw: st.DrawFn) -> bytes:
    """Upgrades of which a part may be wrong, missing, repeated or rare."""
    lines = [f"{name}: {value}" for name, value in FIELDS.items()]
    for name in draw(st.lists(st.sampled_from(list(VALUES)), max_size=2)):
        value = draw(st.sampled_from(VALUES[name]))
        lines[list(FIELDS).index(name)] = f"{draw(any_case(name))}{draw(SPACE)}: {value}"
    if draw(st.integers(0, 3)) == 0:
        lines.pop(draw(st.integers(0, len(lines) - 1)))
    lines = draw(
        st.permutations([*lines, *draw(st.lists(st.sampled_from(ODD_FIELDS), max_size=2))])
    )
    return "\r\n".join([draw(LINES), *lines, "", ""]).encode("iso-8859-1")


@st.composite
def damaged_heads(draw: st.DrawFn) -> bytes:
    """Upgrades with some bytes taken out and others put in."""
    head = draw(st.sampled_from([LOAD_CLIENT, BROWSER, PROXY]) | ordinary_heads())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(head)))
        inserted = draw(
            st.sampled_from([b"", b" ", b"\r", b"\n", b"\r\n", b":", b",", b"\0", b"\xe9"])
        )
        head = head[:at] + inserted + head[at + draw(st.integers(0, 2)) :]
    return head


def with_the_library(data: bytes, origins: frozenset[str] | None) -> Outcome:
    with patch.object(module, "_accept_ordinary", return_value=None):
        return open_with(data, origins)


@given(
    data=ordinary_heads() | odd_heads() | damaged_heads(),
    origins=st.sampled_from([None, OURS, frozenset[str]()]),
    now=st.integers(0, 2**32),
)
def test_every_head_is_answered_as_the_library_would(
    data: bytes, origins: frozenset[str] | None, now: int
) -> None:
    with patch.object(time, "time", return_value=float(now)):
        assert open_with(data, origins) == with_the_library(data, origins)


def agreed(data: bytes) -> Outcome:
    with patch.object(time, "time", return_value=0.0):
        outcome = open_with(data)
        assert outcome == with_the_library(data, None)
    return outcome


@pytest.mark.parametrize("field", ODD_FIELDS, ids=lambda field: field[:40])
def test_one_odd_field_is_answered_as_the_library_would(field: str) -> None:
    line, fields = LOAD_CLIENT.split(b"\r\n", 1)
    added = field.encode("iso-8859-1") + b"\r\n"
    agreed(line + b"\r\n" + added + fields)
    agreed(LOAD_CLIENT[:-2] + added + b"\r\n")


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in VALUES.items() for v in vs])
def test_one_odd_value_is_answered_as_the_library_would(name: str, value: str) -> None:
    good = f"\r\n{name}: {FIELDS[name]}\r\n".encode()
    assert good in request()
    agreed(request().replace(good, f"\r\n{name}: {value}\r\n".encode()))


@pytest.mark.parametrize("name", FIELDS)
def test_one_repeated_field_is_answered_as_the_library_would(name: str) -> None:
    agreed(LOAD_CLIENT[:-2] + f"{name}: {FIELDS[name]}\r\n\r\n".encode())


def without_the_library(data: bytes, origins: frozenset[str] | None = None) -> Outcome:
    with patch.object(module, "_Handshake", side_effect=AssertionError("the library was asked")):
        return open_with(data, origins)


@given(data=ordinary_heads())
def test_ordinary_heads_do_without_the_library(data: bytes) -> None:
    assert isinstance(without_the_library(data), Upgraded)


@pytest.mark.parametrize("data", [LOAD_CLIENT, BROWSER, PROXY])
def test_clients_in_use_do_without_the_library(data: bytes) -> None:
    outcome = without_the_library(data + b"rest", OURS)
    assert isinstance(outcome, Upgraded)
    assert outcome.rest == b"rest"


def test_an_answer_says_when_it_was_given() -> None:
    for now in (1_763_700_000, 1_763_700_000, 1_763_700_001):
        with patch.object(time, "time", return_value=now + 0.9):
            outcome = without_the_library(LOAD_CLIENT)
        assert isinstance(outcome, Upgraded)
        assert f"\r\nDate: {formatdate(now, usegmt=True)}\r\n".encode() in outcome.response


# HTTP


@pytest.mark.parametrize(
    "data",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
        b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"GET /ws\r\nUpgrade: websocket\r\n\r\n",
        b"GET /old HTTP/1.0\n\n",
        b"GET /crlf HTTP/1.1\nHost: x\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        request(line="GET /api HTTP/1.1"),
        request(line="GET /wsx HTTP/1.1"),
        request(line="GET /api?/ws HTTP/1.1"),
        request(line="GET http://chat.example/ws HTTP/1.1"),
        request({"Upgrade": None, "X-Upgrade": "websocket"}),
    ],
)
def test_everything_else_goes_on_to_http_untouched(data: bytes) -> None:
    assert open_with(data) == HttpRequest(data)


def test_a_large_body_behind_a_small_head_is_none_of_our_business() -> None:
    data = b"POST /api HTTP/1.1\r\n\r\n" + b"x" * 4 * HEAD_MAX_BYTES
    assert open_with(data) == HttpRequest(data)


def test_a_head_is_awaited_to_its_end_and_no_longer_than_its_limit() -> None:
    opening = HttpOpening()
    assert opening.feed(b"GET / HTTP/1.1\r\nSlow: ") is None
    for _ in range(HEAD_MAX_BYTES - 24):
        assert opening.feed(b"x") is None
    assert opening.buffered <= HEAD_MAX_BYTES
    assert status_of(opening.feed(b"xxx")) == 431
    assert opening.buffered == 0


def test_a_head_over_the_limit_is_refused_even_if_it_ends() -> None:
    filler = b"X: %s\r\n" % (b"x" * 4_000)
    head = b"GET / HTTP/1.1\r\n" + filler * 5 + b"\r\n"
    assert status_of(open_with(head)) == 431


@given(data=st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: request() + tail))
def test_garbage_never_raises(data: bytes) -> None:
    open_with(data)
    open_with(b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n" + data + b"\r\n\r\n")


# Traces


def test_a_handshake_leaves_nothing_for_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        outcome = with_the_library(request(), None)
        left = [thing for thing in gc.get_objects() if isinstance(thing, ServerProtocol)]
    finally:
        gc.enable()
    assert isinstance(outcome, Upgraded)
    assert left == []


def test_nothing_of_a_head_reaches_a_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        open_with(request({"Authorization": "secret"}))
        open_with(request({"Cookie": "secret", "Sec-WebSocket-Key": "bad"}))
        open_with(request({"Bad name": "secret"}))
    assert caplog.records == []
