"""Connections without a kernel: a socket as `actors.connection` uses it, and the loop that reads.

The node's end looks like a non-blocking socket; the client's end is a `tests.helpers.peer.Carrier`.
What a client does not read fills a buffer of a size, as in a kernel. A dead node's ends swallow
what its last steps write; its clients see the end, perhaps before all that was sent to them.
"""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING, Any

import msgpack
import trio

from actors.parking import Parking
from actors.reader import READ, WRITE
from tests.helpers.peer import Ended, Map, framed

if TYPE_CHECKING:
    from actors.connection import Connection
    from actors.node import Node

BUFFER_BYTES = 8 * 1024
"""What a connection takes of a client who does not read; then its socket is full."""


class NodeEnd:
    """As much of a socket as a connection needs."""

    _last_fd = 1_000

    def __init__(self, reader: SimulatedReader) -> None:
        NodeEnd._last_fd += 1
        self._fd = NodeEnd._last_fd
        self._reader = reader
        self.client = ClientEnd(self)
        self.received = bytearray()
        self.peer_closed = False
        self.dead = False

    # What actors.connection calls

    def fileno(self) -> int:
        return self._fd

    def send(self, data: bytes) -> int:
        if self.dead:
            return len(data)
        if self.peer_closed:
            raise BrokenPipeError
        room = BUFFER_BYTES - len(self.client.received)
        if room <= 0:
            raise BlockingIOError
        taken = data[:room]
        self.client.feed(bytes(taken))
        return len(taken)

    def recv(self, count: int) -> bytes:
        if self.dead:
            raise ConnectionResetError
        if not self.received:
            if self.peer_closed:
                return b""
            raise BlockingIOError
        taken = bytes(self.received[:count])
        del self.received[:count]
        return taken

    def shutdown(self, how: int) -> None:
        if not self.dead:
            self.client.end()

    def close(self) -> None:
        if not self.dead:
            self.client.end()

    # What the world does

    def feed(self, data: bytes) -> None:
        if not self.peer_closed and not self.dead:
            self.received += data
            self._reader.look(self._fd)

    def client_closed(self) -> None:
        self.peer_closed = True
        self._reader.look(self._fd)

    def drained(self) -> None:
        self._reader.look(self._fd)

    def die(self, rng: random.Random) -> None:
        """The node's process is gone; what was on its way may be lost with it."""
        self.dead = True
        if rng.random() < 0.5:
            del self.client.received[rng.randrange(len(self.client.received) + 1) :]
        self.client.end()

    def ready(self, mask: int) -> int:
        """Which of the events in `mask` could be told now."""
        events = 0
        if self.received or self.peer_closed or self.dead:
            events |= READ
        if len(self.client.received) < BUFFER_BYTES:
            events |= WRITE
        return events & mask


class ClientEnd:
    """A `Carrier`: frames of msgpack with their lengths."""

    def __init__(self, node_end: NodeEnd) -> None:
        self.node_end = node_end
        self.received = bytearray()
        self._read = bytearray()
        self._ended = False
        self._parking = Parking()

    def feed(self, data: bytes) -> None:
        self.received += data
        self._parking.unpark()

    def end(self) -> None:
        self._ended = True
        self._parking.unpark()

    async def send(self, message: Map) -> None:
        await trio.lowlevel.checkpoint()
        self.node_end.feed(framed(message))

    async def receive(self) -> Map:
        while (frame := self._take()) is None:
            if self.received:
                self._read += self.received
                self.received.clear()
                self.node_end.drained()
            elif self._ended:
                raise Ended
            else:
                await self._parking.park()
        return frame

    def _take(self) -> Map | None:
        if len(self._read) < 4:
            return None
        (length,) = struct.unpack_from(">I", self._read)
        if len(self._read) < 4 + length:
            return None
        frame: Map = msgpack.unpackb(self._read[4 : 4 + length])
        del self._read[: 4 + length]
        return frame

    async def aclose(self) -> None:
        self.node_end.client_closed()
        await trio.lowlevel.cancel_shielded_checkpoint()


class SimulatedReader:
    """In the place of `actors.reader.Reader`, with its rules: level-triggered, one pass for all."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._connections: dict[int, tuple[Connection, NodeEnd]] = {}
        self._masks: dict[int, int] = {}
        self._looks: dict[int, None] = {}
        self._parking = Parking()
        self.passes = 0

    def look(self, fd: int) -> None:
        """Something may be ready there."""
        self._looks[fd] = None
        self._parking.unpark()

    def connection(self, fd: int) -> Connection | None:
        return self._connections[fd][0] if fd in self._connections else None

    def register(self, connection: Connection) -> None:
        end: Any = connection._socket
        self._connections[connection.fd] = (connection, end)
        self._masks[connection.fd] = READ
        self.look(connection.fd)

    def modify(self, connection: Connection, mask: int) -> None:
        if connection.fd in self._masks:
            self._masks[connection.fd] = mask
            self.look(connection.fd)

    def unregister(self, connection: Connection) -> None:
        self._connections.pop(connection.fd, None)
        self._masks.pop(connection.fd, None)

    async def run(self) -> None:
        node = self._node
        while True:
            if not self._looks:
                await self._parking.park()
            node.tick = node.now()
            looks, self._looks = self._looks, {}
            for fd in looks:
                if fd in self._connections:
                    self._serve(*self._connections[fd])
            self.passes += 1
            if node.flusher.dirty:
                node.flusher.flush_now()
            await trio.lowlevel.checkpoint()

    def _serve(self, connection: Connection, end: NodeEnd) -> None:
        events = end.ready(self._masks[connection.fd])
        try:
            if events & WRITE:
                connection.on_writable()
            if events & READ:
                connection.on_readable()
        except Exception:  # noqa: BLE001 - the supervisor, as in the real one
            connection.crashed()
        mask = self._masks.get(connection.fd, 0)
        if end.ready(mask) & mask & ~(READ if end.peer_closed else 0):
            self._looks[connection.fd] = None  # there is more: the next pass
