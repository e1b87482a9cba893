"""The actors of one process with everything real but the listeners: sockets are pairs, no accounts.

A test joins users by a plain call, and may hold or fail the store's commits and loads.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio
import trio.testing

from actors.connection import Connection
from actors.conversation import Conversation
from actors.node import Node, Options
from actors.queries import Rule
from actors.sweeper import run_sweeper
from actors.wires import TCP_MSGPACK, Wire
from broker.commands import messages, presence, reading
from broker.wire import commands as c
from broker.wire.limits import Limits
from storage.errors import Unavailable
from storage.memory import MemoryStore
from storage.records import Commit, Loaded, User
from tests.helpers.peer import Peer, TcpCarrier

LOOKS_MAX = 100_000


class Gate:
    """Calls pass one by one when it is closed, and fail as often as was asked for."""

    def __init__(self) -> None:
        self.faults: list[Unavailable | Exception] = []
        self.waiting = 0
        self._open: trio.Event | None = None

    def close(self) -> None:
        self._open = trio.Event()

    def open(self) -> None:
        if self._open is not None:
            self._open.set()
            self._open = None

    async def passing(self) -> None:
        if self._open is not None:
            self.waiting += 1
            try:
                await self._open.wait()
            finally:
                self.waiting -= 1


class GatedStore(MemoryStore):
    """A store in memory whose commits and loads a test can hold and fail.

    A fault with `applied` None is the worst kind: the commit has happened all the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.commits = Gate()
        self.loads = Gate()

    async def commit(self, commit: Commit) -> None:
        await self.commits.passing()
        fault = self.commits.faults.pop(0) if self.commits.faults else None
        if fault is None or (isinstance(fault, Unavailable) and fault.applied is None):
            await super().commit(commit)
        if fault is not None:
            raise fault

    async def load(
        self, convs: Sequence[str], tail: int, epochs: Mapping[str, int] | None = None
    ) -> dict[str, Loaded]:
        await self.loads.passing()
        if self.loads.faults:
            raise self.loads.faults.pop(0)
        return await super().load(convs, tail, epochs)


@dataclass
class World:
    node: Node
    store: GatedStore
    nursery: trio.Nursery

    async def users(self, count: int) -> None:
        """Accounts 1 to `count`."""
        users = [User(id=0, name=f"user{n}") for n in range(1, count + 1)]
        await self.store.create_users(users, [None] * count)

    def pair(
        self, wire: Wire = TCP_MSGPACK, *, buffer_bytes: int = 0
    ) -> tuple[Connection, socket.socket]:
        """A connection that nobody has opened yet, and its other end, non-blocking.

        `buffer_bytes`: about what the socket takes of a client who does not read; 0: as usual.
        """
        ours, theirs = socket.socketpair()
        if buffer_bytes:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        for end in (ours, theirs):
            end.setblocking(False)
        connection = Connection(self.node, ours, wire=wire, tls=None, peer="pair:0")
        self.nursery.start_soon(connection.run)
        return connection, theirs

    def accept(self) -> tuple[Connection, Peer]:
        """Likewise, with a peer at the other end."""
        connection, theirs = self.pair()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
        return connection, Peer(TcpCarrier(stream))

    async def join(self, user: int) -> tuple[Connection, Peer]:
        """An open connection of a user."""
        connection, peer = self.accept()
        await trio.testing.wait_all_tasks_blocked()
        connection.opened(user, f"session {user}", "")
        return connection, peer

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the others work until it holds; bounded, so that a test cannot hang."""
        for _ in range(LOOKS_MAX):
            if condition():
                return
            await trio.lowlevel.checkpoint()
        raise AssertionError("it did not come to that")

    def conversation(self, name: str) -> Conversation:
        return self.node.registry.conversations[name]

    def rule(self, command: type[c.Command], rule: Rule) -> None:
        """Have another rule for a command that names a conversation; for those who join later."""

        def handler(connection: Connection, command: Any) -> None:
            connection.post(self.node.registry.conversation(command.conv), command, rule)

        self.node.open_table = {**self.node.open_table, command: handler}


def _ping(connection: Connection, command: c.Ping) -> None:
    connection.ok(command.id)


TABLE: dict[type[c.Command], Callable[[Connection, Any], None]] = {
    c.Ping: _ping,
    c.Send: messages.send,
    c.Edit: messages.amend,
    c.Recall: messages.amend,
    c.History: reading.history,
    c.Read: reading.read,
    c.Typing: reading.typing,
    c.PresenceWatch: presence.presence_watch,
}


@asynccontextmanager
async def world(
    *, users: int = 2, limits: Limits | None = None, sweeps: bool = False, **options: Any
) -> AsyncIterator[World]:
    """A node at work with that many accounts; `sweeps` starts the sweeper too (for mock clocks)."""
    store = GatedStore()
    node = Node(store, limits=limits, options=Options(**options))
    node.opening_table = {c.Ping: _ping}
    node.open_table = TABLE
    async with trio.open_nursery() as tasks:
        node.tasks = tasks
        for task in (
            node.turn.run,
            node.turn.run_loader,
            node.flusher.run,
            node.reader.run,
            node.presence.run,
        ):
            tasks.start_soon(task)
        if sweeps:
            tasks.start_soon(run_sweeper, node)
        made = World(node, store, tasks)
        await made.users(users)
        yield made
        tasks.cancel_scope.cancel()
