"""The client over real sockets: WebSocket by an independent server, TCP, TLS, and bad servers."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
import trustme
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from broker.client import ConnectFailed, ConnectionChanged, NotLoggedIn, connect
from broker.client.accounts import login, refresh, register
from broker.client.transport import SUBPROTOCOL
from tests.broker.client.peer import ME, URL, Broker, Peer, entry

Handler = Callable[[WebSocketRequest], Awaitable[None]]


class WebSocketPeer(Peer):
    """The broker's side of a WebSocket connection, in the same words."""

    def __init__(self, websocket: WebSocketConnection) -> None:
        self.websocket = websocket

    async def hear(self) -> dict[str, Any] | None:
        try:
            data = await self.websocket.get_message()
        except ConnectionClosed:
            return None
        assert isinstance(data, bytes)
        frame = msgspec.msgpack.decode(data)
        assert isinstance(frame, dict)
        return frame

    async def say(self, *frames: dict[str, Any]) -> None:
        for frame in frames:
            await self.websocket.send_message(msgspec.msgpack.encode(frame))


async def serve(nursery: trio.Nursery, handler: Handler) -> str:
    """A WebSocket server on a free port; where it is."""
    server = await nursery.start(partial(serve_websocket, handler, "127.0.0.1", 0, None))
    return f"ws://127.0.0.1:{server.port}/ws"


async def serve_stream(
    nursery: trio.Nursery, handler: Callable[[trio.SocketStream], Awaitable[None]]
) -> int:
    """A TCP server on a free port; which."""
    serve = partial(trio.serve_tcp, handler, 0, host="127.0.0.1")
    listeners = await nursery.start(serve)
    port: int = listeners[0].socket.getsockname()[1]
    return port


async def test_websocket_from_welcome_to_goodbye() -> None:
    closed = trio.Event()

    async def broker(request: WebSocketRequest) -> None:
        assert request.path == "/ws"
        assert SUBPROTOCOL in request.proposed_subprotocols
        peer = WebSocketPeer(await request.accept(subprotocol=SUBPROTOCOL))
        await peer.welcome()
        await peer.synced()
        await peer.say(*(entry(seq, "x" * seq) for seq in range(1, 300)))
        await peer.ok(await peer.expect("send", body="hi"), conv="g/1", seq=300, ts=0)
        assert await peer.hear() is None
        assert peer.websocket.closed is not None
        assert peer.websocket.closed.code == 1000
        closed.set()

    async with trio.open_nursery() as nursery:
        url = await serve(nursery, broker)
        async with connect(url, token="t") as client:
            for seq in range(1, 300):
                assert (await anext(client)).seq == seq  # type: ignore[union-attr]
            assert (await client.send("g/1", "hi")).seq == 300
        await closed.wait()
        nursery.cancel_scope.cancel()


async def test_websocket_that_breaks_is_opened_anew() -> None:
    served = 0

    async def broker(request: WebSocketRequest) -> None:
        nonlocal served
        served += 1
        peer = WebSocketPeer(await request.accept(subprotocol=SUBPROTOCOL))
        await peer.welcome()
        await peer.say({"t": "bye", "code": "draining", "reconnect": True, "after_ms": 1})
        await peer.websocket.aclose(4001)

    async with trio.open_nursery() as nursery:
        url = await serve(nursery, broker)
        async with connect(url, token="t") as client:
            lost, back = await anext(client), await anext(client)
            assert isinstance(lost, ConnectionChanged)
            assert "draining" in lost.reason
            assert back == ConnectionChanged(up=True)
        assert served >= 2
        nursery.cancel_scope.cancel()


async def test_websocket_server_that_refuses() -> None:
    async def refuse(request: WebSocketRequest) -> None:
        await request.reject(503, body=b"come later")

    async def other_protocol(request: WebSocketRequest) -> None:
        await request.accept()

    async with trio.open_nursery() as nursery:
        url = await serve(nursery, refuse)
        with pytest.raises(ConnectFailed, match="503"):
            async with connect(url, token="t"):
                raise AssertionError("not reached")
        url = await serve(nursery, other_protocol)
        with pytest.raises(ConnectFailed, match=r"parley\.msgpack\.v1"):
            async with connect(url, token="t"):
                raise AssertionError("not reached")
        nursery.cancel_scope.cancel()


async def test_server_that_closes_instead_of_a_handshake() -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    async with trio.open_nursery() as nursery:
        port = await serve_stream(nursery, hang_up)
        with pytest.raises(ConnectFailed, match="handshake"):
            async with connect(f"ws://127.0.0.1:{port}/ws", token="t"):
                raise AssertionError("not reached")
        nursery.cancel_scope.cancel()


async def test_nobody_listens() -> None:
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for scheme in ("ws", "tcp"):
            with pytest.raises(ConnectFailed, match=f"127.0.0.1:{port}"):
                async with connect(f"{scheme}://127.0.0.1:{port}", token="t"):
                    raise AssertionError("not reached")


async def test_tls_by_a_trusted_certificate_only() -> None:
    authority = trustme.CA()
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(theirs)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def broker(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, theirs, server_side=True, https_compatible=True)
        peer = Peer(tls)
        if await peer.hear() is not None:
            await peer.say({"t": "ok", "id": 1, "user": ME})
            await peer.hear()

    async with trio.open_nursery() as nursery:
        port = await serve_stream(nursery, broker)
        url = f"tls://localhost:{port}"
        async with connect(url, token="t", ssl_context=trusting) as client:
            assert client.user == ME
        with pytest.raises(ConnectFailed, match="certificate"):
            async with connect(url, token="t"):
                raise AssertionError("not reached")
        nursery.cancel_scope.cancel()


# One command on a connection of its own


async def test_register_login_refresh() -> None:
    broker = Broker()

    async def script() -> None:
        peer = await broker.accept()
        command = await peer.expect("register", name="ann", password="secret secret")
        assert "nickname" not in command
        await peer.ok(command, user=ME)
        peer = await broker.accept()
        command = await peer.expect("login", name="ann", device="phone")
        # Logged in, the connection is open: events may come before the answer is read.
        await peer.say(
            {"t": "typing", "conv": "g/1", "user": 5},
            {"t": "ok", "id": 1, "token": "T", "refresh": "R", "expires": 9, "user": ME},
        )
        peer = await broker.accept()
        command = await peer.expect("refresh", refresh="R")
        await peer.ok(command, token="T2", refresh="R2", expires=10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        opener = broker.open_stream
        assert await register(URL, "ann", "secret secret", open_stream=opener) == ME
        login_ = await login(URL, "ann", "secret secret", device="phone", open_stream=opener)
        assert (login_.token, login_.refresh, login_.user) == ("T", "R", ME)
        assert "T" not in repr(login_).replace("Credentials", "")
        assert (await refresh(URL, "R", open_stream=opener)).token == "T2"


async def test_wrong_password_is_not_logged_in() -> None:
    broker = Broker()

    async def script() -> None:
        peer = await broker.accept()
        await peer.error(await peer.expect("login"), "unauthenticated")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        with pytest.raises(NotLoggedIn):
            await login(URL, "ann", "wrong", open_stream=broker.open_stream)


async def test_login_with_a_broker_that_hangs_or_leaves(
    autojump_clock: trio.testing.MockClock,
) -> None:
    broker = Broker()
    with pytest.raises(ConnectFailed, match="did not answer"):
        await login(URL, "ann", "wrong", open_stream=broker.open_stream)

    async def leave() -> None:
        await broker.accept()
        await (await broker.accept()).close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        with pytest.raises(ConnectFailed, match="did not answer"):
            await login(URL, "ann", "wrong", open_stream=broker.open_stream)
