"""Accepting connections: one loop a port, which outlives whatever accept() may fail with.

Each accepted socket becomes a `Connection` in the nursery that is handed in; what it says is
nobody's business here. Never waits for a client.
"""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from dataclasses import dataclass

import trio

from actors.connection import Connection
from actors.faults import defect
from actors.node import Node
from actors.tls import TlsSocket
from actors.wires import Wire
from broker.running import Address

log = logging.getLogger("parley.listener")

BACKLOG = 4096
ACCEPTS_BEFORE_YIELD = 64
"""Accepted in one go, so that a storm of connections cannot starve those that are there."""
EXHAUSTED_PAUSE_S = 0.1
LOG_PERIOD_S = 10.0
SURPLUS_DIVISOR = 8
SURPLUS_MIN = 64
"""Above the limit, an eighth of it (at least this many) may be there to be sent away politely."""

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""There is no room for one more connection now; the ones that wait stay in the backlog."""
FAILED_IN_THE_BACKLOG = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPERM,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENONET,
        errno.EOPNOTSUPP,
        errno.EINTR,
    }
)
"""What accept(2) reports of the one connection that it takes from the queue; the next may do."""


def bind(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Listening sockets for every address of `host`, all on one port.

    A `shared` port may be bound by other processes of ours too: each gets its part of what comes.
    Raises `OSError`, with the address in the place of a file's name.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, proto, _, address in dict.fromkeys(found):
            # Further addresses share the port that the first was given.
            at = (address[0], sockets[0].getsockname()[1] if sockets else port, *address[2:])
            sockets.append(_listening(socket.socket(family, kind, proto), at, shared))
    except OSError as error:
        for sock in sockets:
            sock.close()
        reason = error.strerror or str(error)
        raise OSError(error.errno, reason, str(Address(host, port))) from error
    return sockets


def _listening(sock: socket.socket, address: tuple[object, ...], shared: bool) -> socket.socket:
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Accepted sockets inherit it, which saves a call for each.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


@dataclass(frozen=True, slots=True)
class Listener:
    """One port. `wire` None: HTTP decides. `context`: TLS comes first."""

    node: Node
    wire: Wire | None
    context: ssl.SSLContext | None
    connections: trio.Nursery

    async def run(self, listening: socket.socket) -> None:
        """Accept until cancelled; then the listening socket is closed."""
        logged_at = -LOG_PERIOD_S
        try:
            while True:
                await trio.lowlevel.wait_readable(listening)
                try:
                    self._accept_some(listening)
                except OSError as error:
                    if error.errno not in EXHAUSTED:
                        raise
                    if trio.current_time() - logged_at >= LOG_PERIOD_S:
                        logged_at = trio.current_time()
                        log.error("cannot accept connections: %s", error.strerror)
                    await trio.sleep(EXHAUSTED_PAUSE_S)
        finally:
            trio.lowlevel.notify_closing(listening)
            listening.close()

    def _accept_some(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_BEFORE_YIELD):
            try:
                sock, address = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in FAILED_IN_THE_BACKLOG:
                    continue
                raise
            self._take(sock, address)

    def _take(self, sock: socket.socket, address: tuple[str, int]) -> None:
        node = self.node
        limit = node.options.max_connections
        if len(node.connections) >= limit + max(SURPLUS_MIN, limit // SURPLUS_DIVISOR):
            node.counters.connections_refused += 1
            sock.close()
            return
        sock.setblocking(False)
        node.counters.accepted += 1
        connection = Connection(
            node,
            sock,
            wire=self.wire,
            tls=TlsSocket(sock, self.context) if self.context is not None else None,
            peer=f"{address[0]}:{address[1]}",
        )
        self.connections.start_soon(_live, connection)


async def _live(connection: Connection) -> None:
    try:
        await connection.run()
    except Exception:  # noqa: BLE001 - the supervisor: a connection that fails just closes
        connection.node.counters.crashes += 1
        defect("a connection")
