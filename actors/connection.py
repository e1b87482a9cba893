"""One client connection: its socket, its framing, its commands in flight, its end.

The connection's task owns its life: it sleeps while the readiness loop receives and dispatches by
plain calls, is woken for what must wait (opening commands, the hand-over of an HTTP request), and
tears down. Commands are looked up in a table that the app hands in; nothing here knows what one
does. Crash policy: a failure of one command is answered with `internal`; a failure of the
connection closes it and touches nobody else.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from actors.closing import Closing, Job
from actors.faults import defect
from actors.reader import DESCRIPTOR_BITS, READ, WRITE
from actors.tls import TlsSocket
from actors.wires import WEBSOCKET_WIRES, WS_JSON, Wire
from broker.wire.codec import UNDECODABLE, BadCommand
from broker.wire.commands import Command, Send
from broker.wire.errors import ByeCode, Code, FrameError, Refusal
from broker.wire.limits import MAX_ID
from broker.wire.opening import HttpOpening, HttpRequest, Refused, Upgraded

if TYPE_CHECKING:
    from actors.conversation import Conversation
    from actors.node import Node, Table
    from actors.queries import Rule
    from actors.session import Session

RECEIVE_BYTES = 64 * 1024

HELD_BY_JOB, HELD_BY_MAILBOX, HELD_BY_FLIGHT, HELD_BY_DRAIN = 1, 2, 4, 8


class HttpHandover(Struct):
    """A socket that turned out to carry plain HTTP: `data` was already read from it."""

    socket: socket.socket
    tls: TlsSocket | None
    data: bytes


class ConnectionStatistics(Struct, frozen=True):
    peer: str
    wire: str
    user: int
    in_flight: int
    queued_bytes: int
    stalled: bool
    behind: int


class Connection(Closing):
    """`table` maps the struct of a command to what is done with it, by the state of the opening."""

    __slots__ = (
        "_mask",
        "_table",
        "device",
        "fd",
        "generation",
        "opened_at",
        "peer",
        "peers",
        "recv",
        "seen_at",
        "session",
        "session_id",
        "watching",
    )

    def __init__(
        self,
        node: Node,
        sock: socket.socket,
        *,
        wire: Wire | None,
        tls: TlsSocket | None,
        peer: str,
    ) -> None:
        """`wire` None: the first bytes are HTTP and decide. The socket must be non-blocking."""
        carrier: Any = tls if tls is not None else sock
        framer = wire.framer(node.limits.frame_bytes) if wire else node.http_opening()
        super().__init__(node, wire or WS_JSON, carrier.send, framer, sock, tls)
        self.recv: Callable[[int], bytes] = carrier.recv
        self.fd = sock.fileno()
        self.peer = peer
        self.session: Session | None = None
        self.session_id = ""
        self.device = ""
        self.generation = 0
        self.peers: dict[int, Conversation] | None = None
        self.watching: set[int] | None = None
        self.opened_at = self.seen_at = node.now()
        self._table: Table = node.opening_table
        self._mask = READ

    # Life

    async def run(self) -> None:
        """From accept to close; owned by the listener's nursery."""
        node = self.node
        node.connections[self] = None
        node.opening[self] = None
        try:
            node.reader.register(self)
            if node.full() and not isinstance(self.framer, HttpOpening):
                self.send_away()
            while True:
                await self._parking.park()
                if self._job is None:
                    break
                (job, argument), self._job = self._job, None
                await job(self, argument)
        finally:
            self.leave()
            node.reader.unregister(self)
            node.connections.pop(self, None)
            node.lingering.pop(self, None)
            node.stalled.discard(self)
            self.closing = True
            self._socket.close()

    def leave(self) -> None:
        """No more part in anything that others see; at the goodbye or at the end."""
        if not self._left:
            self._left = True
            self.node.opening.pop(self, None)
            self.node.presence.unwatch_all(self)
            self.node.registry.detach(self)

    # Receiving

    def on_readable(self) -> None:
        """Receive once, take the whole frames, dispatch them."""
        if self.held:
            self.rearm()  # not sooner: most of those who have to wait say nothing meanwhile
            return
        try:
            data = self.recv(RECEIVE_BYTES)
        except BlockingIOError:
            if self.stalled:
                self.rearm()  # the end of a TLS handshake is what makes writing possible
            return
        except OSError:
            self.broken()
            return
        if not data:
            self._on_eof()
            return
        if self.stalled and self._tls is not None:
            self.rearm()
        self.seen_at = self.node.tick
        if self.closing:
            return  # lingering: only the end of the stream is awaited
        framer = self.framer
        if type(framer) is HttpOpening:
            self._on_http(framer, data)
        else:
            self._dispatch(framer.feed(data))  # type: ignore[arg-type]

    def _dispatch(self, frames: list[bytes]) -> None:
        codec = self.wire.codec
        decode = codec.decode_good
        in_flight_max = self.node.limits.in_flight
        rest = iter(frames)
        for frame in rest:
            if self.closing:
                return
            try:
                command = decode(frame)
            except UNDECODABLE:
                if not self._on_undecodable(frame):
                    return
                continue
            self.in_flight += 1
            handler = self._table.get(type(command))
            if handler is None:
                self._refuse_state(command)
                continue
            try:
                handler(self, command)
            except Refusal as refusal:
                self.refuse(command.id, refusal)
            except Exception:  # noqa: BLE001 - the supervisor
                self.node.counters.crashes += 1
                self.refuse(command.id, defect(f"command {type(command).__name__}"))
            if self.in_flight >= in_flight_max:
                self.held |= HELD_BY_FLIGHT
            if self.held:
                self._backlog = [*rest, *(self._backlog or ())]
                return
        if self.closing:
            return
        framer = self.framer
        if framer.control:  # type: ignore[union-attr]
            self.push(framer.control)  # type: ignore[union-attr]
            framer.control = b""  # type: ignore[union-attr]
        if framer.error is not None:  # type: ignore[union-attr]
            self._on_bad_frame(framer.error)  # type: ignore[union-attr]
        elif framer.ended:  # type: ignore[union-attr]
            self._close_when_sent()

    def _on_undecodable(self, frame: bytes) -> bool:
        """Find out what is wrong; False if the stream ends here."""
        try:
            self.wire.codec.decode(frame)
        except BadCommand as bad:
            self.in_flight += 1
            self.refuse(bad.id, bad.refusal)
        except FrameError as error:
            self._on_bad_frame(error)
            return False
        return True

    def _refuse_state(self, command: Command) -> None:
        if self.session is None:
            refusal = Refusal(Code.UNAUTHENTICATED, "say hello first: hello, login or register")
        else:
            refusal = Refusal(Code.BAD_REQUEST, "this connection is open already", field="t")
        self.refuse(command.id, refusal)

    def _on_bad_frame(self, error: FrameError) -> None:
        reply = {"t": "error", "code": error.code, "message": error.message, "retry": False}
        self.push_event(reply)
        self.bye(ByeCode.BAD_FRAME)

    def _on_eof(self) -> None:
        """The peer sends no more; half-closed, it may still read what it waits for."""
        self.half_closed = True
        if self.closing and self.pending is None:
            self._finish()
        elif self.closing or self.in_flight:
            self.rearm()
        else:
            self._end_of_stream()

    def _end_of_stream(self) -> None:
        """Nothing more comes, and everything that came is answered."""
        framer = self.framer
        if isinstance(framer, HttpOpening):
            self._finish()
        elif framer.buffered:
            fault = f"the stream ended within a frame, after {framer.buffered} bytes of it"
            self._on_bad_frame(FrameError(fault))
        else:
            self._close_when_sent()

    def _on_http(self, framer: HttpOpening, data: bytes) -> None:
        outcome = framer.feed(data)
        if outcome is None:
            return
        if type(outcome) is Upgraded:
            self.wire = WEBSOCKET_WIRES[outcome.codec.name]
            self.framer = self.wire.framer(self.node.limits.frame_bytes)
            self.push(outcome.response)
            if self.node.full():
                self.send_away()
            elif outcome.rest:
                self._dispatch(self.framer.feed(outcome.rest))
        elif type(outcome) is HttpRequest:
            self.node.opening.pop(self, None)
            self.node.reader.unregister(self)
            self.begin(_hand_over, outcome.data)
        else:
            assert type(outcome) is Refused
            self.push(outcome.response)
            self._close_when_sent()

    # Holding back: the socket is not read while the client has to wait

    def begin(self, job: Job, argument: Any) -> None:
        """Have the connection's own task do something that waits; nothing is read meanwhile."""
        self.held |= HELD_BY_JOB
        self._job = (job, argument)
        self._parking.unpark()

    def hold(self, reason: int) -> None:
        self.held |= reason

    def pause(self) -> None:
        """Read no more, for good; what was read is still answered."""
        if not self.closing and not isinstance(self.framer, HttpOpening):
            self.held |= HELD_BY_DRAIN
            self.rearm()

    def release(self, reason: int) -> None:
        """A reason to wait is gone; with the last one the backlog is dispatched."""
        if not self.held & reason:
            return
        self.held &= ~reason
        if self.held or self.closing:
            return
        backlog, self._backlog = self._backlog, None
        if not isinstance(self.framer, HttpOpening):
            self._dispatch(backlog or [])
        if not self.held:
            self.rearm()

    def rearm(self) -> None:
        mask = 0 if self.held or self.half_closed else READ
        if self.stalled and (self._tls is None or self._tls.shaken):
            mask |= WRITE
        if mask != self._mask:
            self._mask = mask
            self.node.reader.modify(self, mask)

    # Commands

    def opened(
        self,
        user: int,
        session_id: str,
        device: str,
        generation: int = 0,
        *,
        hidden: bool = False,
    ) -> None:
        """The caller is known: from now on the connection is theirs.

        `generation` is that of the user's account; when it grows, this session is over. `hidden`:
        nobody may learn that the user is here.
        """
        if self.closing:
            return
        self.user = user
        self.session_id = session_id
        self.device = device
        self.generation = generation
        self.session = self.node.registry.attach(self, user, hidden=hidden)
        self.node.opening.pop(self, None)
        self._table = self.node.open_table
        self.node.counters.logins += 1

    def post(self, conversation: Conversation, command: Any, rule: Rule) -> None:
        """Give a command to a conversation; if its mailbox is full, wait (and read no more)."""
        if not conversation.post(self, command, rule):
            self.wait_for(conversation, command, rule)

    def dispatch_again(self, command: Any) -> None:
        """A command that was not looked at: its conversation is somewhere else now."""
        if type(command) is Send and self.session is not None:
            self.session.give_back()  # its rate was counted
        try:
            self.node.open_table[type(command)](self, command)
        except Refusal as refusal:
            self.refuse(command.id, refusal)

    @property
    def number(self) -> int:
        """Names the connection to other nodes; no later one on the same descriptor has it too."""
        return (int(self.opened_at * 1e6) << DESCRIPTOR_BITS | self.fd) & MAX_ID

    def wait_for(self, conversation: Conversation, command: Any, rule: Rule) -> None:
        """The conversation's mailbox is full: it takes the command when there is room."""
        conversation.block(self, command, rule)
        self.held |= HELD_BY_MAILBOX

    def unblock(self) -> None:
        """A full mailbox took the command that waited."""
        self.release(HELD_BY_MAILBOX)

    async def perform_held(self, command: Any, work: Job) -> None:
        """`perform`, for a job of the connection's own task."""
        await self.perform(command, work)
        self.release(HELD_BY_JOB)

    def answered(self) -> None:
        """A connection that waits for its answers may have had enough of them."""
        if self.held & HELD_BY_FLIGHT and self.in_flight <= self.node.limits.in_flight // 2:
            self.release(HELD_BY_FLIGHT)
        if self.half_closed and not self.in_flight:
            self._end_of_stream()

    @property
    def speaks(self) -> str:
        """The name of its wire; `http` as long as that is open, or if it is plain HTTP."""
        return "http" if isinstance(self.framer, HttpOpening) else self.wire.name

    def statistics(self) -> ConnectionStatistics:
        return ConnectionStatistics(
            self.peer,
            self.speaks,
            self.user,
            self.in_flight,
            self.queued_bytes,
            self.stalled,
            len(self.behind or ()),
        )


async def _hand_over(connection: Connection, data: bytes) -> None:
    await connection.node.http(HttpHandover(connection._socket, connection._tls, data))
    connection._finish()
