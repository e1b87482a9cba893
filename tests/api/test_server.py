"""The seam to Hypercorn: sockets handed over with their first bytes, deadlines, ends."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from trio.testing import MockClock

from actors.connection import HttpHandover
from actors.tls import TlsSocket
from api.server import IDLE_TIMEOUT_S, HttpServer
from api.stream import SEND_TIMEOUT_S
from tests.helpers.certificates import certificate

GET = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
BIG = 8 * 1024 * 1024


async def echo(request: Request) -> Response:
    return Response(await request.body() or b"nothing")


async def big(request: Request) -> Response:
    return Response(bytes(BIG))


APP = Starlette(
    routes=[
        Route("/echo", echo, methods=["GET", "POST"]),
        Route("/big", big),
    ]
)


@asynccontextmanager
async def handed_over(
    data: bytes, server: HttpServer | None = None
) -> AsyncIterator[trio.SocketStream]:
    """The client's side of a socket that a server was given together with `data`."""
    server = server or HttpServer(APP)
    listening = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listening.getsockname())
    ours, _ = listening.accept()
    listening.close()
    ours.setblocking(False)
    client.setblocking(False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_and_close, server, HttpHandover(ours, None, data))
        async with trio.SocketStream(trio.socket.from_stdlib_socket(client)) as stream:
            yield stream
        nursery.cancel_scope.cancel()


async def serve_and_close(server: HttpServer, handover: HttpHandover) -> None:
    try:
        await server.serve(handover)
    finally:
        handover.socket.close()


async def read_to_end(stream: trio.abc.ReceiveStream) -> bytes:
    data = b""
    async for part in stream:
        data += part
    return data


async def read_until(stream: trio.abc.ReceiveStream, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        part = await stream.receive_some(65536)
        assert part, data
        data += part
    return data


async def test_the_bytes_already_read_are_the_first_of_the_request() -> None:
    async with handed_over(GET[:10]) as client:
        await client.send_all(GET[10:])
        assert (await read_until(client, b"nothing")).startswith(b"HTTP/1.1 200 ")


async def test_a_connection_is_kept_for_further_requests() -> None:
    async with handed_over(GET + GET) as client:
        first = await read_until(client, b"nothing")
        if first.count(b"nothing") < 2:
            await read_until(client, b"nothing")
        await client.send_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        await read_until(client, b"abc")


async def test_an_idle_connection_is_ended(autojump_clock: MockClock) -> None:
    async with handed_over(GET) as client:
        await read_until(client, b"nothing")
        assert await client.receive_some() == b""
    assert IDLE_TIMEOUT_S <= trio.current_time() < IDLE_TIMEOUT_S + 5


async def test_a_head_that_trickles_in_is_ended(autojump_clock: MockClock) -> None:
    async with handed_over(b"GET /echo HTTP/1.1\r\n") as client, trio.open_nursery() as nursery:
        nursery.start_soon(trickle, client, b"X-Slow: yes\r\n" * 1_000)
        await read_to_end(client)
        nursery.cancel_scope.cancel()
    assert trio.current_time() < IDLE_TIMEOUT_S + 5


async def trickle(stream: trio.SocketStream, data: bytes) -> None:
    try:
        for index in range(len(data)):
            await stream.send_all(data[index : index + 1])
            await trio.sleep(1)
    except trio.BrokenResourceError:
        pass


async def test_garbage_is_answered_and_ended() -> None:
    async with handed_over(b"\x16\x03\x01 what\r\n\r\n") as client:
        assert (await read_to_end(client)).startswith(b"HTTP/1.1 400 ")


async def test_closing_lets_the_response_under_way_end_and_idle_ones_go() -> None:
    server = HttpServer(APP)
    async with handed_over(GET, server) as idle:
        await read_until(idle, b"nothing")
        async with handed_over(b"POST /echo HTTP/1.1\r\nHost: x\r\n", server) as busy:
            await busy.send_all(b"Content-Length: 3\r\n\r\na")
            await trio.testing.wait_all_tasks_blocked()
            await server.close()
            assert await read_to_end(idle) == b""
            await busy.send_all(b"bc")
            assert (await read_to_end(busy)).endswith(b"abc")


async def test_a_client_that_does_not_read_is_ended(autojump_clock: MockClock) -> None:
    async with handed_over(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n") as client:
        await trio.sleep(SEND_TIMEOUT_S + IDLE_TIMEOUT_S + 5)
        received = 0
        try:
            async for part in client:
                received += len(part)
        except trio.BrokenResourceError:
            pass
        assert received < BIG


async def test_a_client_that_leaves_in_the_middle_harms_nobody() -> None:
    async with handed_over(
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na"
    ) as client:
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
        await trio.testing.wait_all_tasks_blocked()


async def test_a_long_response_over_tls_comes_whole(tmp_path: Path) -> None:
    cert, key, trusting = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    tls = TlsSocket(ours, context)
    stream = trio.SSLStream(
        trio.SocketStream(trio.socket.from_stdlib_socket(theirs)),
        trusting,
        server_hostname="localhost",
        https_compatible=True,
    )
    async with trio.open_nursery() as nursery:
        request = b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        nursery.start_soon(stream.send_all, request)
        head = await first_bytes(tls, ours)
        nursery.start_soon(serve_and_close, HttpServer(APP), HttpHandover(ours, tls, head))
        answer = await read_to_end(stream)
    assert answer.endswith(b"\r\n\r\n" + bytes(BIG))


async def first_bytes(tls: TlsSocket, sock: socket.socket) -> bytes:
    """What a connection does before it hands over: the handshake, and the first bytes."""
    while True:
        await trio.lowlevel.wait_readable(sock)
        with contextlib.suppress(BlockingIOError):
            return tls.recv(65536)
