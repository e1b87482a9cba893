"""Answering commands: every one gets exactly one reply, and a connection counts those it owes.

The writing half of a connection (`actors.outbox`) with replies. Crash policy: a failure of one
command is answered with `internal` and logged under a reference; nothing else is harmed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from actors.faults import defect, error_reply, unavailable
from actors.outbox import Outbox
from actors.wires import Wire
from broker.wire.errors import Refusal
from storage.errors import Unavailable

if TYPE_CHECKING:
    from actors.node import Node


async def perform(
    answering: Any, command: Any, work: Callable[[Any, Any], Awaitable[None]]
) -> None:
    """Run work that answers by itself or raises; the supervisor of single commands.

    `answering` is a connection, or what stands in for one.
    """
    node: Node = answering.node
    try:
        await work(answering, command)
    except Refusal as refusal:
        answering.refuse(command.id, refusal)
    except Unavailable as error:
        node.counters.store_failures += 1
        answering.refuse(command.id, unavailable(error))
    except Exception:  # noqa: BLE001 - the supervisor
        node.counters.crashes += 1
        answering.refuse(command.id, defect(f"command {type(command).__name__}"))
    # No turn and no pass of the reader ends here, which would send the answer.
    node.flusher.kick()


class Answering(Outbox):
    """`in_flight` is the number of commands that are read and not answered yet.

    `held` are the reasons for which the client is not read now (0: none); `half_closed` means that
    it has said its last and waits for answers.
    """

    __slots__ = ("half_closed", "held", "in_flight")

    def __init__(self, node: Node, wire: Wire, send: Callable[[bytes], int]) -> None:
        super().__init__(node, wire, send)
        self.in_flight = 0
        self.held = 0
        self.half_closed = False

    def ok(self, command_id: int, **fields: object) -> None:
        """The `ok` reply."""
        self.answer({"t": "ok", "id": command_id, **fields})

    def page(self, command_id: int, conv: str, seq: int, head: int, **fields: object) -> None:
        """The `ok` to a pull: it tells of everything up to `seq`, when the newest is `head`."""
        self.ok(command_id, head=head, **fields)
        self.reached(conv, seq, head)

    def refuse(self, command_id: int | None, refusal: Refusal) -> None:
        """The `error` reply."""
        self.node.counters.refused += 1
        self.answer_all([error_reply(command_id, refusal)])

    def answer(self, reply: object) -> None:
        """Any reply."""
        if self.closing:
            self.in_flight -= 1
            return
        # Counted when it is made: one that cannot be is replaced by an error.
        data = self.wire.codec.encode(reply)
        self.in_flight -= 1
        self.push(self.wire.header(len(data)) + data)
        if self.held or self.half_closed:
            self.answered()

    def answer_all(self, replies: list[object]) -> None:
        """Encode and write replies, and account for the commands that they answer."""
        if self.closing or not replies:
            self.in_flight -= len(replies)
            return
        encode = self.wire.codec.encode
        header = self.wire.header
        parts: list[bytes] = []
        for reply in replies:
            data = encode(reply)
            parts += (header(len(data)), data)
        self.in_flight -= len(replies)
        self.push(b"".join(parts))
        if self.held or self.half_closed:
            self.answered()

    def answer_encoded(self, reply: bytes) -> None:
        """A reply that another node has made, in this connection's encoding."""
        self.in_flight -= 1
        if self.closing:
            return
        self.push(self.wire.header(len(reply)) + reply)
        if self.held or self.half_closed:
            self.answered()

    async def perform(self, command: Any, work: Callable[[Any, Any], Awaitable[None]]) -> None:
        """Run work that answers by itself or raises."""
        await perform(self, command, work)

    def answered(self) -> None:
        """Replies were written, and somebody waits for that."""
        raise NotImplementedError
