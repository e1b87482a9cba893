"""A client that shares no code with the broker: raw sockets, trio-websocket, msgpack and json."""

from __future__ import annotations

import base64
import json
import ssl
import struct
from collections import deque
from typing import Any, Protocol

import msgpack
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, connect_websocket

Map = dict[str, Any]


class Ended(Exception):
    """The server has ended the stream, in order (`status`: of a WebSocket)."""

    def __init__(self, status: int | None = None, reason: str | None = None) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class Carrier(Protocol):
    async def send(self, message: Map) -> None: ...

    async def receive(self) -> Map: ...

    async def aclose(self) -> None: ...


class TcpCarrier:
    """Four bytes of length and msgpack, over any stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._received = b""

    async def send(self, message: Map) -> None:
        await self.stream.send_all(framed(message))

    async def receive(self) -> Map:
        (length,) = struct.unpack(">I", await self._exactly(4))
        message: Map = msgpack.unpackb(await self._exactly(length))
        return message

    async def _exactly(self, count: int) -> bytes:
        while len(self._received) < count:
            data = await self.stream.receive_some(65536)
            if not data:
                assert not self._received, "the stream ended within a frame"
                raise Ended
            self._received += data
        taken, self._received = self._received[:count], self._received[count:]
        return taken

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self.stream)


class WebSocketCarrier:
    """One message, one frame; binary messages are msgpack, text is JSON."""

    def __init__(self, websocket: WebSocketConnection, *, text: bool) -> None:
        self.websocket = websocket
        self.text = text

    async def send(self, message: Map) -> None:
        data: str | bytes
        data = json.dumps(message, default=_base64) if self.text else msgpack.packb(message)
        await self._open(self.websocket.send_message(data))

    async def receive(self) -> Map:
        data = await self._open(self.websocket.get_message())
        assert isinstance(data, str) == self.text, "a message of the wrong kind"
        message: Map = json.loads(data) if self.text else msgpack.unpackb(data)
        return message

    async def _open(self, doing: Any) -> Any:
        try:
            return await doing
        except ConnectionClosed as error:
            reason = error.reason
            raise Ended(*((reason.code, reason.reason) if reason else ())) from None

    async def aclose(self) -> None:
        await self.websocket.aclose()


class Peer:
    """One connection. `events` are the frames without an `id` that `ask` has met on its way."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier
        self.events: deque[Map] = deque()
        self.user = 0
        self.welcome: Map = {}
        self._replies: dict[int, Map] = {}
        self._last_id = 0

    async def send(self, t: str, **fields: Any) -> int:
        """Send a command without waiting; its id."""
        self._last_id += 1
        fields = {name: value for name, value in fields.items() if value is not None}
        await self.carrier.send({"t": t, "id": self._last_id, **fields})
        return self._last_id

    async def reply(self, id: int) -> Map:
        """The reply to a command that was sent; events before it are kept."""
        while id not in self._replies:
            message = await self.carrier.receive()
            if "id" in message:
                self._replies[message["id"]] = message
            else:
                self.events.append(message)
        return self._replies.pop(id)

    async def ask(self, t: str, **fields: Any) -> Map:
        """Send a command and wait for its reply, whatever it says."""
        return await self.reply(await self.send(t, **fields))

    async def ok(self, t: str, **fields: Any) -> Map:
        """`ask`, where anything but `ok` fails the test."""
        reply = await self.ask(t, **fields)
        assert reply["t"] == "ok", reply
        return reply

    async def error(self, t: str, **fields: Any) -> Map:
        """`ask`, where anything but an error fails the test."""
        reply = await self.ask(t, **fields)
        assert reply["t"] == "error", reply
        return reply

    async def event(self, t: str | None = None) -> Map:
        """The next event, or the next one of that name (others before it are dropped)."""
        while True:
            event = self.events.popleft() if self.events else await self.carrier.receive()
            if "id" in event:
                self._replies[event["id"]] = event
            elif t in (None, event["t"]):
                return event

    async def ended(self) -> Ended:
        """Wait for the end of the stream. Frames before it are kept as events or replies."""
        try:
            while True:
                message = await self.carrier.receive()
                if "id" in message:
                    self._replies[message["id"]] = message
                else:
                    self.events.append(message)
        except Ended as ended:
            return ended

    async def hello(self, token: str, **fields: Any) -> Map:
        """Open with a token."""
        self.welcome = await self.ok("hello", token=token, **fields)
        self.user = self.welcome["user"]
        return self.welcome

    async def aclose(self) -> None:
        await self.carrier.aclose()


def framed(message: Any) -> bytes:
    """A frame as it is on a TCP connection."""
    payload: bytes = message if isinstance(message, bytes) else msgpack.packb(message)
    return struct.pack(">I", len(payload)) + payload


async def open_tcp(host: str, port: int, *, tls: ssl.SSLContext | None = None) -> Peer:
    """A peer on the TCP port."""
    stream: trio.abc.Stream = await trio.open_tcp_stream(host, port)
    if tls is not None:
        stream = trio.SSLStream(stream, tls, server_hostname="localhost", https_compatible=True)
    return Peer(TcpCarrier(stream))


async def open_websocket(
    nursery: trio.Nursery,
    host: str,
    port: int,
    *,
    subprotocol: str | None = "parley.msgpack.v1",
    tls: ssl.SSLContext | None = None,
) -> Peer:
    """A peer on the HTTP port; `nursery` runs trio-websocket's task."""
    websocket = await connect_websocket(
        nursery,
        host,
        port,
        "/ws",
        use_ssl=tls if tls is not None else False,
        subprotocols=[subprotocol] if subprotocol else None,
    )
    return Peer(WebSocketCarrier(websocket, text=subprotocol != "parley.msgpack.v1"))


def _base64(value: object) -> str:
    assert isinstance(value, bytes)
    return base64.b64encode(value).decode()
