"""Opening connections and talking on them step by step, many at once, before the fast loop starts.

A script is a generator that writes to its socket, yields to wait for more bytes, and returns a
result. Nothing here is on a measured path but the case that measures opening itself.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, TypeVar

from bench import wire
from bench.wire import ProtocolError, Transport

T = TypeVar("T")
Script = Generator[None, bytes, T]

READ_BYTES = 65_536
OPENING_TIMEOUT_S = 60.0
LINGER_NONE = struct.pack("ii", 1, 0)


class Opened(NamedTuple):
    """A connection that is ready for traffic; `user` is 0 where the server has no users."""

    sock: socket.socket
    user: int


class Stalled(Exception):
    """The server did not answer in time."""


def connect(host: str, port: int) -> socket.socket:
    """A connected, non-blocking socket. Raises `OSError`."""
    sock = socket.create_connection((host, port), timeout=OPENING_TIMEOUT_S)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def abandon(sock: socket.socket) -> None:
    """Close at once by a reset, so that no port is held back in TIME_WAIT."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
    sock.close()


def run_all(
    host: str,
    port: int,
    scripts: Iterator[Callable[[socket.socket], Script[T]]],
    *,
    at_once: int,
) -> Iterator[T]:
    """Connect once for each script and run them, `at_once` at a time; results as they come.

    Raises `Stalled` when nothing happens for too long, `ProtocolError` when a server hangs up.
    """
    poll = select.epoll()
    running: dict[int, tuple[socket.socket, Script[T]]] = {}

    def step(fd: int, data: bytes | None) -> T | None:
        sock, script = running[fd]
        try:
            if data is None:
                next(script)
            else:
                script.send(data)
        except StopIteration as done:
            del running[fd]
            if sock.fileno() >= 0:
                poll.unregister(sock)
            return done.value  # type: ignore[no-any-return]
        return None

    try:
        while True:
            while len(running) < at_once and (make := next(scripts, None)) is not None:
                sock = connect(host, port)
                poll.register(sock, select.EPOLLIN)
                running[sock.fileno()] = (sock, make(sock))
                if (result := step(sock.fileno(), None)) is not None:
                    yield result
            if not running:
                return
            events = poll.poll(OPENING_TIMEOUT_S, at_once)
            if not events:
                raise Stalled(f"{len(running)} connections wait for an answer")
            for fd, _ in events:
                data = running[fd][0].recv(READ_BYTES)
                if not data:
                    raise ProtocolError("the server hung up while a connection was opened")
                if (result := step(fd, data)) is not None:
                    yield result
    finally:
        poll.close()


def converse(sock: socket.socket, script: Script[T]) -> T:
    """Run one script on a socket that is open, with nothing else going on.

    Raises `Stalled`, `ProtocolError`.
    """
    deadline = time.monotonic() + OPENING_TIMEOUT_S
    readable = select.poll()  # `select.select` knows the first 1,024 descriptors only
    readable.register(sock, select.POLLIN)
    try:
        next(script)
        while True:
            if not readable.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise Stalled("no answer to a command")
            if not (data := sock.recv(READ_BYTES)):
                raise ProtocolError("the server hung up")
            script.send(data)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


def parley(sock: socket.socket, token: str, transport: Transport) -> Script[Opened]:
    """Upgrade (WebSocket) and `hello`."""
    data = b""
    if transport == "ws":
        sock.send(wire.UPGRADE_REQUEST)
        while b"\r\n\r\n" not in data:
            data += yield
        head, _, data = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101") or wire.UPGRADE_ACCEPT not in head:
            raise ProtocolError(f"no upgrade: {head[:200]!r}")
    reply = yield from ask(sock, {"t": "hello", "id": 1, "token": token}, transport, data)
    return Opened(
        sock, int(reply["user"]["id"] if isinstance(reply["user"], dict) else reply["user"])
    )


def ask(
    sock: socket.socket, fields: dict[str, Any], transport: Transport, data: bytes = b""
) -> Script[dict[str, Any]]:
    """Send one command and wait for its reply; events before it are passed over.

    Raises `ProtocolError` for an `error` reply.
    """
    sock.send(wire.command(fields, transport))
    while True:
        payloads, data = wire.split(data, transport)
        for payload in payloads:
            reply = wire.decode(payload)
            if reply.get("id") != fields["id"]:
                continue
            if reply.get("t") not in ("ok", "welcome"):
                raise ProtocolError(f"{fields['t']} was answered with {reply}")
            return reply
        data += yield


def close_websocket(sock: socket.socket) -> Script[None]:
    """The closing handshake, until the server's answer; what comes before it is passed over."""
    sock.send(wire.CLOSE_FRAME)
    data = b""
    while b"\x88" not in data:
        data += yield
    return None


def nats(sock: socket.socket, subject: bytes) -> Script[Opened]:
    """CONNECT and, unless `subject` is empty, one subscription; PONG says that it is in force."""
    data = b""
    while b"\r\n" not in data:
        data += yield
    subscribe = b"SUB %b 1\r\n" % subject if subject else b""
    sock.send(b'CONNECT {"verbose":false,"pedantic":false}\r\n' + subscribe + b"PING\r\n")
    data = b""
    while b"PONG\r\n" not in data:
        data += yield
    return Opened(sock, 0)


FLOOR_HELLO = struct.Struct(">II")
FLOOR_READY = b"+"


def floor(sock: socket.socket, group: int, publish_bytes: int) -> Script[Opened]:
    """Tell the bare loop which group this socket is in and how long a publish will be."""
    sock.send(FLOOR_HELLO.pack(group, publish_bytes))
    data = b""
    while not data:
        data += yield
    if data != FLOOR_READY:
        raise ProtocolError(f"the floor answered {data!r}")
    return Opened(sock, 0)
