"""Frames over a socket: TCP with lengths, or WebSocket by trio-websocket. Opens and closes it.

It knows nothing of what frames mean, and never reconnects. All that goes wrong with a connection
is a `TransportBroken` here.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Protocol

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from broker.client.address import Address
from broker.client.codec import LengthReader, wrap_length
from broker.client.errors import ConnectFailed
from broker.client.groups import unwrapped
from broker.client.limits import (
    CLOSING_SECONDS,
    FRAME_MAX_BYTES,
    OPENING_SECONDS,
    RECEIVE_BYTES,
)

SUBPROTOCOL = "parley.msgpack.v1"

OpenStream = Callable[[Address, ssl.SSLContext | None], Awaitable[trio.abc.Stream]]
"""Opens the byte stream to a broker; raises `OSError`."""


class TransportBroken(Exception):
    """The connection is gone, in order or not; the text says how."""


class Transport(Protocol):
    """One open connection."""

    async def send(self, frames: Iterable[bytes]) -> None:
        """Write frames in order. Cancelled in between, the transport is of no more use."""

    async def receive(self) -> list[bytes]:
        """The next whole frames, at least one. Raises `BadAnswer`, `TransportBroken`."""

    async def aclose(self) -> None:
        """Close in order."""


async def open_stream(address: Address, context: ssl.SSLContext | None) -> trio.abc.Stream:
    """A TCP connection, with TLS where the address asks for it. Raises `OSError`."""
    if not address.secure:
        return await trio.open_tcp_stream(address.host, address.port)
    stream = await trio.open_ssl_over_tcp_stream(
        address.host, address.port, ssl_context=context, https_compatible=True
    )
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise OSError(f"TLS could not be set up: {error.__cause__ or error}") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


@asynccontextmanager
async def open_transport(
    address: Address, context: ssl.SSLContext | None, opener: OpenStream = open_stream
) -> AsyncIterator[Transport]:
    """A connection for the length of the block, closed in order unless the block fails.

    Raises `ConnectFailed`.
    """
    try:
        with unwrapped():
            async with _opened(address, context, opener) as transport:
                yield transport
    except HandshakeError as error:
        raise ConnectFailed(f"{address} refused the connection: {_refusal(error)}") from error


@asynccontextmanager
async def _opened(
    address: Address, context: ssl.SSLContext | None, opener: OpenStream
) -> AsyncIterator[Transport]:
    async with trio.open_nursery() as nursery:
        stream = None
        try:
            with trio.fail_after(OPENING_SECONDS):
                stream = await opener(address, context)
                transport = await _transport(address, stream, nursery)
        except (OSError, trio.TooSlowError) as error:
            await _discard(stream)
            raise ConnectFailed(f"no connection to {address}: {_why(error)}") from error
        except BaseException:
            await _discard(stream)
            raise
        try:
            yield transport
        except BaseException:
            await _discard(stream)
            raise
        with trio.move_on_after(CLOSING_SECONDS):
            await transport.aclose()
        await _discard(stream)
        nursery.cancel_scope.cancel()


async def _transport(address: Address, stream: trio.abc.Stream, nursery: trio.Nursery) -> Transport:
    if address.websocket:
        return await _WebSocketTransport.open(address, stream, nursery)
    return _TcpTransport(stream)


async def _discard(stream: trio.abc.Stream | None) -> None:
    if stream is not None:
        # Closes at once, and raises Cancelled only if the caller is cancelled anyway.
        await trio.aclose_forcefully(stream)


def _why(error: Exception) -> str:
    if isinstance(error, trio.TooSlowError):
        return f"no answer within {OPENING_SECONDS:g} s"
    return str(error) or type(error).__name__


def _refusal(error: HandshakeError) -> str:
    if isinstance(error, ConnectionRejected):
        return f"HTTP status {error.status_code}"
    return type(error).__name__


class _TcpTransport:
    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._reader = LengthReader()

    async def send(self, frames: Iterable[bytes]) -> None:
        try:
            await self._stream.send_all(b"".join(map(wrap_length, frames)))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise TransportBroken("the connection broke while writing") from error

    async def receive(self) -> list[bytes]:
        while True:
            try:
                data = await self._stream.receive_some(RECEIVE_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise TransportBroken("the connection broke while reading") from error
            if not data:
                raise TransportBroken("the broker closed the connection")
            if frames := self._reader.feed(data):
                return frames

    async def aclose(self) -> None:
        await self._stream.aclose()


class _WebSocketTransport:
    def __init__(self, websocket: WebSocketConnection) -> None:
        self._websocket = websocket

    @classmethod
    async def open(
        cls, address: Address, stream: trio.abc.Stream, nursery: trio.Nursery
    ) -> _WebSocketTransport:
        """Do the handshake. Raises `OSError`; a rejection is raised out of `nursery`."""
        watched = _WatchedStream(stream)
        websocket: WebSocketConnection | None = None

        async def shake_hands(scope: trio.CancelScope) -> None:
            nonlocal websocket
            websocket = await wrap_client_stream(
                nursery,
                watched,  # type: ignore[arg-type]  # any stream will do
                address.authority,
                address.path,
                subprotocols=[SUBPROTOCOL],
                max_message_size=FRAME_MAX_BYTES,
                receive_buffer_size=RECEIVE_BYTES,
            )
            scope.cancel()

        # The library waits for ever if the other side closes instead of answering.
        async with trio.open_nursery() as race:
            race.start_soon(shake_hands, race.cancel_scope)
            await watched.ended.wait()
            race.cancel_scope.cancel()
        if websocket is None:
            raise OSError("the other side closed the connection instead of a WebSocket handshake")
        if websocket.subprotocol != SUBPROTOCOL:
            raise OSError(f"the other side does not speak {SUBPROTOCOL}")
        return cls(websocket)

    async def send(self, frames: Iterable[bytes]) -> None:
        try:
            for frame in frames:
                await self._websocket.send_message(frame)
        except ConnectionClosed as error:
            raise TransportBroken(_closed(error)) from error

    async def receive(self) -> list[bytes]:
        try:
            message = await self._websocket.get_message()
        except ConnectionClosed as error:
            raise TransportBroken(_closed(error)) from error
        if isinstance(message, str):
            raise TransportBroken("the broker sent a text message where binary was agreed")
        return [message]

    async def aclose(self) -> None:
        await self._websocket.aclose()


def _closed(error: ConnectionClosed) -> str:
    if error.reason is None:
        return "the connection is closed"
    return f"the broker closed the connection (status {error.reason.code})"


class _WatchedStream(trio.abc.Stream):
    """A stream that tells when the other side's end of it was reached."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.ended = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.ended.set()
            raise
        if not data:
            self.ended.set()
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()
