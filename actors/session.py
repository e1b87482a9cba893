"""A user's session on this node: their connections, private events and queries.

One per user with a connection. Deliveries of conversations do not pass through it: conversations
write to the connections' outboxes themselves. Its mailbox holds the commands that need a store and
belong to no conversation; a few workers, alive only while there is work, take them. A command that
fails is answered and never ends the session.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio
from msgspec import Struct

from broker.wire.errors import ByeCode

if TYPE_CHECKING:
    from actors.connection import Connection
    from actors.node import Node

WORKERS = 4
"""Queries of one user that may be under way at once."""

Query = Callable[["Connection", Any], Awaitable[None]]


class SessionStatistics(Struct, frozen=True):
    user: int
    connections: int
    waiting: int
    workers: int


class Session:
    __slots__ = (
        "_allowance",
        "_allowance_at",
        "_mailbox",
        "_workers",
        "connections",
        "node",
        "user",
    )

    def __init__(self, node: Node, user: int) -> None:
        self.node = node
        self.user = user
        self.connections: list[Connection] = []
        self._mailbox: deque[tuple[Connection, Any, Query]] | None = None
        self._workers = 0
        self._allowance = float(node.options.sends_burst)
        self._allowance_at = node.now()

    # Connections

    def attach(self, connection: Connection) -> None:
        """Take up an authenticated connection; over the limit the oldest one is replaced."""
        self.connections.append(connection)
        if len(self.connections) > self.node.options.connections_per_user:
            self.connections[0].bye(ByeCode.REPLACED)

    def detach(self, connection: Connection) -> None:
        """Forget a connection; the last one ends the session."""
        if connection in self.connections:
            self.connections.remove(connection)
            if not self.connections:
                self.node.registry.end_session(self)

    # Rate

    def wait_ms(self) -> int:
        """Take one from the allowance of sends: 0, or how long to wait for the next one.

        A token bucket: `sends_per_second` with a burst of `sends_burst`.
        """
        rate = self.node.options.sends_per_second
        if not rate:
            return 0
        now = self.node.now()
        self._allowance = min(
            float(self.node.options.sends_burst),
            self._allowance + (now - self._allowance_at) * rate,
        )
        self._allowance_at = now
        if self._allowance < 1.0:
            return int((1.0 - self._allowance) / rate * 1000) + 1
        self._allowance -= 1.0
        return 0

    def give_back(self) -> None:
        """Undo what `wait_ms` took, for a send that is looked at again."""
        self._allowance += 1.0

    # Queries

    def submit(self, connection: Connection, command: Any, query: Query) -> None:
        """Have a query run; the connection's own limit in flight bounds how many wait."""
        if self._mailbox is None:
            self._mailbox = deque()
        self._mailbox.append((connection, command, query))
        if self._workers < WORKERS:
            self._workers += 1
            self.node.tasks.start_soon(self._work)

    @property
    def changing(self) -> trio.Lock:
        """Held by a query that reads and then replaces something of the user's own."""
        return self.node.registry.changing(self.user)

    async def _work(self) -> None:
        try:
            while self._mailbox:
                connection, command, query = self._mailbox.popleft()
                async with self.node.queries:
                    await connection.perform(command, query)
        finally:
            self._workers -= 1
            if not self._workers and not self._mailbox:
                self._mailbox = None

    def statistics(self) -> SessionStatistics:
        waiting = len(self._mailbox) if self._mailbox else 0
        return SessionStatistics(self.user, len(self.connections), waiting, self._workers)
