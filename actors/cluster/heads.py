"""How far conversations are that a writer has in hand: only the writer knows, here or elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from storage.records import Head

if TYPE_CHECKING:
    from actors.cluster.caller import Caller
    from actors.conversation import Conversation
    from actors.node import Node
    from broker.wire.errors import Refusal


class HeadQuery(Struct):
    """A command of no client: what is your head?"""

    id: int = 0


class Asker:
    """Gathers the heads of conversations of this node; it is to them what a connection is.

    A conversation that is not active is taken up. One that fails, or goes to another node
    meanwhile, is left out.
    """

    def __init__(self, node: Node, convs: Sequence[str]) -> None:
        self.node = node
        self.user = 0
        self.closing = False
        self.heads: dict[str, Head] = {}
        self._left = len(convs)
        self._done = trio.Event()
        for conv in convs:
            actor = node.registry.conversations.get(conv)
            if actor is not None and actor.loaded:
                self.heads[conv] = Head(actor.head, actor.ts)
                self._count()
            elif node.registry.owns(conv):
                node.registry.conversation(conv).post(self, HeadQuery(), _tell_head)  # type: ignore[arg-type]
            else:
                self._count()
        if not convs:
            self._done.set()

    async def wait(self) -> dict[str, Head]:
        """What is known when all have answered."""
        await self._done.wait()
        return self.heads

    def _count(self) -> None:
        self._left -= 1
        if self._left <= 0:
            self._done.set()

    # What a conversation calls of a connection

    def answer_all(self, replies: list[tuple[str, Head]]) -> None:
        for conv, head in replies:
            self.heads[conv] = head
            self._count()

    def refuse(self, command_id: int | None, refusal: Refusal) -> None:
        self._count()

    def dispatch_again(self, command: HeadQuery) -> None:
        self._count()

    def unblock(self) -> None:
        """Nobody was held back."""


def _tell_head(conv: Conversation, connection: Caller, command: HeadQuery) -> None:
    # Not more than what is durable: what this very turn appends is told when it is.
    conv.answer(connection, command.id, (conv.name, Head(conv.head, conv.ts)))  # type: ignore[arg-type]
