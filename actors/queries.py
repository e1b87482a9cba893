"""Commands of a conversation that must read the store: beside the turns, a connection's in turn.

A connection's later commands to the conversation wait for the answer, so replies stay in order. A
query decides nothing; what it has found out may go back into a turn, where a rule decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from actors.ledger import Ledger
from actors.mailbox import Mailbox

if TYPE_CHECKING:
    from actors.connection import Connection
    from actors.node import Node

Rule = Callable[[Any, "Connection", Any], None]
"""Decides one command by plain calls on the conversation; raises `Refusal` or `NeedEntries`."""

Query = Callable[[Any, "Connection", Any], Awaitable[None]]
"""Answers one command after reading from the store; decides nothing."""

Item = tuple["Connection", Any, Rule]
"""A command in the mailbox."""


class Queries(Ledger):
    """A conversation's mailbox, and who must wait before more of it is decided."""

    __slots__ = ("_mailbox", "_queued", "_waiting", "abandoned")

    def __init__(self, node: Node, name: str) -> None:
        super().__init__(node, name)
        self.abandoned = False
        """Another node writes it now: what comes is sent there."""
        self._mailbox: Mailbox[Item] = Mailbox(node.options.mailbox_commands)
        self._waiting: dict[Connection, deque[Item]] = {}
        self._queued = False

    def query(self, connection: Connection, command: Any, work: Query) -> None:
        """Run something that reads the store, beside the turns; it answers by itself.

        It starts when this turn is durable and answered, so that it sees what came before it.
        """
        self._waiting[connection] = deque()
        start = partial(self._start_query, connection, command, work)
        self._answers.append((connection, command.id, start))

    def _start_query(self, connection: Connection, command: Any, work: Query) -> None:
        self.node.tasks.start_soon(self._run_query, connection, command, work)

    def proceed(self, connection: Connection, command: Any, rule: Rule) -> None:
        """At the end of a query that does not answer: decide, with what it has found out."""
        self._waiting[connection].appendleft((connection, command, rule))

    async def _run_query(self, connection: Connection, command: Any, work: Query) -> None:
        try:
            async with self.node.queries:
                await connection.perform(command, partial(work, self))
        finally:
            self._stop_waiting(connection)

    def _fetch(self, connection: Connection, command: Any, rule: Rule, seqs: Sequence[int]) -> None:
        async def work(conv: Queries, connection: Connection, command: Any) -> None:
            for seq in seqs:
                await conv._borrow(seq)
            conv.proceed(connection, command, rule)

        # A query, since this very turn may be what stores them.
        self.query(connection, command, work)

    async def _borrow(self, seq: int) -> None:
        payloads = await self.node.store.read(self.name, after=seq - 1, limit=1)
        # What is held by now is as new at least: it may have changed since the store was read.
        if self.recent.payload(seq) is None:
            self.recent.borrow(seq, payloads[0])

    def _stop_waiting(self, connection: Connection) -> None:
        items = self._waiting.pop(connection, None)
        if items:
            self._mailbox.put_back(list(items))
            if not self._queued or self.abandoned:
                self.wake()

    def wake(self) -> None:
        """Something is in the mailbox, or there may be something to tell."""
        raise NotImplementedError
