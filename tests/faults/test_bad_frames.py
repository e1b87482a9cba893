"""What is no frame ends its connection with the reason, on every transport, and no other one."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
import trio

from tests.faults.raw import send_raw
from tests.helpers.broker import Broker
from tests.helpers.peer import Peer, TcpCarrier, WebSocketCarrier, framed

WIRES = ["tcp", "ws", "ws-json"]
PING = msgpack.packb({"t": "ping", "id": 1})
LIMIT = 128 * 1024

MSGPACK = {
    "truncated": PING[:-3],
    "with bytes behind": PING + b"\x00",
    "empty": b"",
    "no msgpack": b"\xc1",
    "a list": msgpack.packb(["ping", 1]),
    "a number": msgpack.packb(7),
    "nil": msgpack.packb(None),
    "json instead": b'{"t":"ping","id":1}',
    "no utf-8": b"\x82\xa1t\xa4\xff\xfe\xfd\xfc\xa2id\x01",
    "nested without end": b"\x81\xa1x" + b"\x91" * 100_000,
    "promising more than there is": b"\x82\xa1t\xdb\xff\xff\xff\xffping",
}
JSON = {
    "truncated": b'{"t":"ping","id"',
    "with bytes behind": b'{"t":"ping","id":1} {}',
    "empty": b"",
    "no json": b"ping",
    "a list": b'["ping",1]',
    "a number": b"7",
    "null": b"null",
    "half a surrogate pair": b'{"t":"ping","id":1,"x":"\\ud800"',
    "not a number": b'{"t":"ping","id":NaN}',
    "nested without end": b'{"x":' + b"[" * 100_000,
}
CASES = [
    *[(wire, what, MSGPACK[what]) for wire in ("tcp", "ws") for what in MSGPACK],
    *[("ws-json", what, JSON[what]) for what in JSON],
]


async def goodbye(peer: Peer, wire: str) -> dict[str, Any]:
    """The error that comes before `bye bad_frame` and the end of the stream."""
    with trio.fail_after(5):
        ended = await peer.ended()
    error, bye = peer.events
    assert (error["t"], error["retry"]) == ("error", False)
    assert "id" not in error
    assert (bye["t"], bye["code"], bye["reconnect"]) == ("bye", "bad_frame", False)
    assert ended.status == (None if wire == "tcp" else 4005)
    return error


@pytest.mark.parametrize(("wire", "what", "payload"), CASES, ids=[f"{w}-{c}" for w, c, _ in CASES])
@pytest.mark.parametrize("opened", [True, False], ids=["open", "opening"])
async def test_what_is_no_frame_is_told_and_ended(
    broker: Broker, wire: str, what: str, payload: bytes, opened: bool
) -> None:
    other = await broker.join("bob")
    peer = await (broker.join("ann", over=wire) if opened else connect(broker, wire))
    await send_raw(peer, payload)
    error = await goodbye(peer, wire)
    assert error["code"] == "bad_frame"
    assert len(error["message"]) > len("bad_frame")
    await other.ok("ping")


async def connect(broker: Broker, wire: str) -> Peer:
    if wire == "tcp":
        return await broker.tcp()
    return await broker.ws("parley.json.v1" if wire == "ws-json" else "parley.msgpack.v1")


@pytest.mark.parametrize("wire", WIRES)
async def test_a_frame_that_is_too_long_is_refused_by_its_size(broker: Broker, wire: str) -> None:
    peer = await broker.join("ann", over=wire)
    await send_raw(peer, b'"' + b"x" * LIMIT + b'"')
    error = await goodbye(peer, wire)
    assert error["code"] == "too_large"
    assert str(LIMIT) in error["message"]


async def test_a_length_alone_is_enough_to_be_refused(broker: Broker) -> None:
    peer = await broker.join("ann")
    assert isinstance(peer.carrier, TcpCarrier)
    await peer.carrier.stream.send_all(b"\xff\xff\xff\xff")
    assert (await goodbye(peer, "tcp"))["code"] == "too_large"


async def test_a_stream_that_ends_within_a_frame_is_no_frame(broker: Broker) -> None:
    peer = await broker.join("ann")
    assert isinstance(peer.carrier, TcpCarrier)
    assert isinstance(peer.carrier.stream, trio.SocketStream)
    await peer.carrier.stream.send_all(framed(PING)[:-1])
    await peer.carrier.stream.send_eof()
    assert "within a frame" in (await goodbye(peer, "tcp"))["message"]


@pytest.mark.parametrize(("wire", "message"), [("ws", '{"t":"ping","id":1}'), ("ws-json", PING)])
async def test_a_websocket_message_of_the_other_kind_is_no_frame(
    broker: Broker, wire: str, message: str | bytes
) -> None:
    peer = await broker.join("ann", over=wire)
    assert isinstance(peer.carrier, WebSocketCarrier)
    await peer.carrier.websocket.send_message(message)
    assert (await goodbye(peer, wire))["code"] == "bad_frame"


@pytest.mark.parametrize("wire", WIRES)
async def test_good_frames_before_the_bad_one_are_answered(broker: Broker, wire: str) -> None:
    peer = await broker.join("ann", over=wire)
    ids = [await peer.send("ping") for _ in range(3)]
    await send_raw(peer, b"[]" if wire == "ws-json" else b"\x90")
    await goodbye(peer, wire)
    assert [(await peer.reply(id))["t"] for id in ids] == ["ok"] * 3


def nested(depth: int) -> Any:
    """Maps within maps, `depth` of them."""
    value: Any = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("depth", [17, 100, 500])
async def test_a_body_nested_too_deep_is_named_and_the_connection_goes_on(
    broker: Broker, wire: str, depth: int
) -> None:
    bob = await broker.user("bob")
    peer = await broker.join("ann", over=wire)
    fields = {"to": {"user": bob.id}, "kind": "custom"}
    error = await peer.error("send", key="a", body=nested(depth), **fields)
    assert (error["code"], error["field"]) == ("bad_request", "body")
    assert (await peer.ok("send", key="a", body=nested(16), **fields))["seq"] == 1


@pytest.mark.parametrize("wire", WIRES)
async def test_others_are_undisturbed_by_a_storm_of_bad_frames(broker: Broker, wire: str) -> None:
    ann, bob = await broker.join("ann", over=wire), await broker.join("bob", over=wire)
    for n in range(30):
        bad = await connect(broker, wire)
        await send_raw(bad, b"[]" if wire == "ws-json" else b"\x90")
        await ann.ok("send", to={"user": bob.user}, key=f"{n}", kind="text", body=f"{n}")
        await goodbye(bad, wire)
    assert [(await bob.event("msg"))["body"] for _ in range(30)] == [f"{n}" for n in range(30)]
