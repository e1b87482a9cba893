"""The one readiness loop: an epoll object of our own, on which trio waits.

trio re-arms its own epoll with every wait, a system call per message; so the connections' sockets
are registered here once, and one task polls for all of them. A pass receives from each ready
connection, which parses and dispatches by plain calls, and ends with a flush of what was answered
at once. It never awaits for the sake of a single connection.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from actors.connection import Connection
    from actors.node import Node

EVENTS_PER_PASS = 256
DESCRIPTOR_BITS = 20
"""More descriptors than a process can have."""
READ = select.EPOLLIN
WRITE = select.EPOLLOUT
_GONE = select.EPOLLHUP | select.EPOLLERR


class Reader:
    __slots__ = ("_connections", "_epoll", "_node", "passes")

    def __init__(self, node: Node) -> None:
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._node = node
        self.passes = 0

    def register(self, connection: Connection) -> None:
        self._connections[connection.fd] = connection
        self._epoll.register(connection.fd, READ)

    def connection(self, fd: int) -> Connection | None:
        """The connection with this descriptor."""
        return self._connections.get(fd)

    def modify(self, connection: Connection, mask: int) -> None:
        """Wait for `READ`, `WRITE`, both or (0) neither; a dead socket is always reported."""
        if connection.fd in self._connections:
            self._epoll.modify(connection.fd, mask)

    def unregister(self, connection: Connection) -> None:
        """Forget it; the socket must still be open. Twice is once."""
        known = self._connections.pop(connection.fd, None) is not None
        if known and not self._epoll.closed:  # closed when all is cancelled at once
            self._epoll.unregister(connection.fd)

    async def run(self) -> None:
        epoll = self._epoll
        connections = self._connections
        node = self._node
        flusher = node.flusher
        try:
            while True:
                await trio.lowlevel.wait_readable(epoll.fileno())
                node.tick = node.now()
                for fd, events in epoll.poll(0, EVENTS_PER_PASS):
                    connection = connections.get(fd)
                    if connection is None:
                        continue  # closed earlier in this pass
                    try:
                        if events & WRITE:
                            connection.on_writable()
                        if events & READ:
                            connection.on_readable()
                        elif events & _GONE:
                            connection.broken()
                            # Its task may be at something that takes long, and this be told with
                            # every poll until then.
                            self.unregister(connection)
                    except Exception:  # noqa: BLE001 - the supervisor
                        connection.crashed()
                self.passes += 1
                if flusher.dirty:
                    flusher.flush_now()
        finally:
            epoll.close()
