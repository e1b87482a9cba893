"""The stand-in, at the owner of a conversation, for a client's connection at another node.

One for each command: what rules answer goes back there, in the client's own encoding. It compares
equal for all commands of one connection, since conversations keep the order by that. It has the
part of `actors.connection.Connection` that rules use, and nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio

from actors.answering import perform
from actors.cluster.words import Answer, Ask
from actors.faults import error_reply
from actors.wires import WIRES

if TYPE_CHECKING:
    from actors.cluster.peer import Peer
    from actors.conversation import Conversation
    from actors.node import Node
    from actors.queries import Rule
    from broker.wire.errors import Refusal


class CallerSession:
    """The part of a session that rules use; its rate is counted where the client is connected."""

    __slots__ = ("_node", "user")

    def __init__(self, node: Node, user: int) -> None:
        self._node = node
        self.user = user

    def wait_ms(self) -> int:
        return 0

    @property
    def changing(self) -> trio.Lock:
        """As of `actors.session.Session`, and the same one."""
        return self._node.registry.changing(self.user)


class Caller:
    __slots__ = (
        "attempt",
        "behind",
        "closing",
        "node",
        "number",
        "peer",
        "peers",
        "session",
        "slot",
        "tag",
        "user",
        "wire",
    )

    def __init__(self, node: Node, peer: Peer, ask: Ask) -> None:
        self.node = node
        self.peer = peer
        self.number = ask.connection
        """Of the connection, at its node."""
        self.tag = ask.tag
        self.slot = ask.slot
        self.attempt = ask.attempt
        self.user = ask.user
        self.wire = WIRES[ask.wire]
        self.session = CallerSession(node, ask.user)
        self.peers: dict[int, Conversation] | None = None
        self.behind: set[str] | None = None
        self.closing = False

    def __eq__(self, other: object) -> bool:
        return type(other) is Caller and other.number == self.number and other.peer is self.peer

    def __hash__(self) -> int:
        return hash((self.peer.inbox, self.number))

    # Answers

    def ok(self, command_id: int, **fields: object) -> None:
        self.answer({"t": "ok", "id": command_id, **fields})

    def refuse(self, command_id: int | None, refusal: Refusal) -> None:
        self.node.counters.refused += 1
        self.answer(error_reply(command_id, refusal))

    def page(self, command_id: int, conv: str, seq: int, head: int, **fields: object) -> None:
        reply = self.wire.codec.encode({"t": "ok", "id": command_id, "head": head, **fields})
        # One word: where the reply does not arrive, nobody is taken to know what it tells.
        self.peer.say(Answer(self.tag, reply, conv, seq, head))

    def answer(self, reply: object) -> None:
        self.peer.say(Answer(self.tag, self.wire.codec.encode(reply)))

    def answer_all(self, replies: list[object]) -> None:
        for reply in replies:
            self.answer(reply)

    async def perform(self, command: Any, work: Callable[[Any, Any], Awaitable[None]]) -> None:
        await perform(self, command, work)

    # Mailboxes

    def post(self, conversation: Conversation, command: Any, rule: Rule) -> None:
        if not conversation.post(self, command, rule):  # type: ignore[arg-type]
            self.wait_for(conversation, command, rule)

    def wait_for(self, conversation: Conversation, command: Any, rule: Rule) -> None:
        """What waits is bounded by the commands in flight that its node allows a connection."""
        conversation.block(self, command, rule)  # type: ignore[arg-type]

    def unblock(self) -> None:
        """Nobody was held back here."""

    def dispatch_again(self, command: Any) -> None:
        """The conversation is not this node's any more: its node sends the command elsewhere."""
        self.peer.bounce(self.slot, self.attempt, self.tag)
