"""The end of a connection: goodbyes, flushing before closing, lingering, leaving everything.

A peer is told why, gets all that was written, and is given a bounded time to close its side, or it
would see a broken connection and lose the last frames. Nothing here waits; the connection's task
is woken to tear down.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from actors.answering import Answering
from actors.faults import defect
from actors.parking import Parking
from actors.tls import TlsSocket
from actors.wires import Wire
from broker.wire.errors import CLOSE_STATUS, RECONNECT, ByeCode
from broker.wire.framing import Framer
from broker.wire.opening import HttpOpening
from broker.wire.websocket import close_frame

if TYPE_CHECKING:
    from actors.node import Node

Job = Callable[[Any, Any], Awaitable[None]]


class Closing(Answering):
    """`closing` (of the outbox) is set from the goodbye on: no more is read or written."""

    __slots__ = ("_backlog", "_job", "_left", "_parking", "_socket", "_tls", "framer")

    def __init__(
        self,
        node: Node,
        wire: Wire,
        send: Callable[[bytes], int],
        framer: Framer | HttpOpening,
        sock: socket.socket,
        tls: TlsSocket | None,
    ) -> None:
        super().__init__(node, wire, send)
        self.framer = framer
        self._socket = sock
        self._tls = tls
        self._backlog: list[bytes] | None = None
        self._left = False
        self._job: tuple[Job, Any] | None = None
        self._parking = Parking()

    def send_away(self) -> None:
        """There are too many connections: this one may come again later."""
        self.node.counters.connections_refused += 1
        self.bye(ByeCode.TOO_MANY_CONNECTIONS, after_ms=self.node.retry_slot_ms())

    def bye(self, code: ByeCode, after_ms: int | None = None) -> None:
        """Say why, then close: flush, shut down, and linger until the peer has closed too."""
        if self.closing:
            return
        if isinstance(self.framer, HttpOpening):
            self._finish()  # no protocol was agreed on in which to say goodbye
            return
        if code is ByeCode.SLOW_CONSUMER:
            self.drop_queue()
        event: dict[str, object] = {"t": "bye", "code": code, "reconnect": code in RECONNECT}
        if after_ms is not None:
            event["after_ms"] = after_ms
        data = self.wire.wrap(self.wire.codec.encode(event))
        if self.wire.websocket:
            data += close_frame(CLOSE_STATUS[code], code)
        self._close_when_sent(data)

    def _close_when_sent(self, last: bytes = b"") -> None:
        if self.closing:
            return
        # Before the last words: they must not overflow an outbox that is ended for overflowing.
        self.closing = True
        if last:
            self.push(last)
        self.held = 0
        self._backlog = None
        self.leave()
        node = self.node
        node.lingering[self] = node.now() + node.options.linger_ms / 1000
        node.flusher.kick()
        if self.pending is None:
            self.drained()
        else:
            self.rearm()

    def drained(self) -> None:
        """Everything was sent: tell the peer, and wait for its end of the stream (bounded)."""
        if self._tls is not None:
            self._tls.close_notify()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._finish()
            return
        # A broadcast that is under way may still have it on its list: that goes nowhere.
        self.send = len
        if self.half_closed:
            self._finish()
        else:
            self.rearm()

    def check_silence(self) -> None:
        """Nothing was received for too long, unless it is we who do not read."""
        if not self.held and not self.closing:
            self.bye(ByeCode.IDLE)

    def cut(self) -> None:
        """Close now; for deadlines that have passed."""
        self._finish()

    def _finish(self) -> None:
        """Let the task run to its end."""
        self._job = None
        self.closing = True
        self._parking.unpark()

    def broken(self) -> None:
        """The socket failed or the peer is gone."""
        self._finish()

    def crashed(self) -> None:
        """A defect was met while its bytes were read or written: it is closed, others go on."""
        self.node.counters.crashes += 1
        defect("a connection")
        self._finish()

    def leave(self) -> None:
        """No more part in anything that others see; at the goodbye or at the end. Once."""
        raise NotImplementedError
