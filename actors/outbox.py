"""The writing half of a connection: gather, send once, and degrade when the peer does not read.

What is written waits in `pending` until the flush. If the socket is full, the outbox is *stalled*:
it counts bytes and the readiness loop says when to go on. Above the soft mark ephemeral events are
dropped; above the high mark the busiest conversations' live entries are replaced by one `behind`
each; above the hard mark, or when nothing drained for the stall time, the connection is cut. No
method waits, so a stalled peer never delays another.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Protocol

from actors.images import Image, Source
from actors.wires import Wire
from broker.wire.errors import ByeCode

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from actors.node import Node


class Live(Source, Protocol):
    """A conversation that a client can be live in."""

    @property
    def members(self) -> Container[int]: ...

    @property
    def told(self) -> int:
        """Up to where it has told those who are live."""

    def subscribe(self, connection: Any, /) -> None: ...


SEND_MAX_BYTES = 256 * 1024
"""How much one `send()` of a stalled outbox is offered."""


class Outbox:
    """`pending` is None (clean), one piece (dirty), or a list of pieces (dirty, or stalled)."""

    __slots__ = (
        "behind",
        "closing",
        "node",
        "pending",
        "progress_at",
        "queued_bytes",
        "send",
        "stalled",
        "user",
        "wire",
    )

    def __init__(self, node: Node, wire: Wire, send: Callable[[bytes], int]) -> None:
        self.node = node
        self.wire = wire
        self.send = send
        self.pending: bytes | Image | list[bytes | Image] | None = None
        self.user = 0
        self.stalled = False
        self.closing = False
        self.queued_bytes = 0
        self.progress_at = 0.0
        self.behind: set[str] | None = None

    # Writing

    def push(self, piece: bytes | Image) -> None:
        """Write a reply, an event or a batch's image; it is sent with the next flush."""
        pending = self.pending
        if pending is None:
            self.pending = piece
            self.node.flusher.dirty.append(self)
        else:
            self._join(pending, piece)

    def push_live(self, image: Image) -> None:
        """Write entries that were meant for it when it was live; it may no longer be."""
        if not self.closing and not (self.behind and image.source.name in self.behind):
            self.push(image)

    def push_ephemeral(self, piece: bytes) -> None:
        """Write what may be lost (typing, presence): dropped if the peer is slow already."""
        if self.stalled and self.queued_bytes > self.node.options.soft_bytes:
            self.node.counters.ephemeral_dropped += 1
        else:
            self.push(piece)

    def push_event(self, event: object) -> None:
        """Encode an event for this connection alone and write it."""
        wire = self.wire
        self.push(wire.wrap(wire.codec.encode(event)))

    def _join(self, pending: bytes | Image | list[bytes | Image], piece: bytes | Image) -> None:
        if type(pending) is list:
            pending.append(piece)
        else:
            self.pending = [pending, piece]  # type: ignore[list-item]
        if self.stalled:
            before = self.queued_bytes
            self.queued_bytes += size_of(piece)
            high = self.node.options.high_bytes
            if self.queued_bytes > high and not self.closing:
                # Once above, nothing is left to be dropped but what comes: looking through all
                # that waits with every reply would take the time of everybody.
                if before <= high or type(piece) is Image:
                    self._degrade()
                else:
                    self._cut_above_hard_mark()

    # Sending

    def flush(self) -> None:
        """One `send()` of what has gathered. Called by the flush pass, once per dirty mark."""
        pending = self.pending
        if self.stalled or pending is None:
            return
        kind = type(pending)
        if kind is Image:
            data = pending.data  # type: ignore[union-attr]
        elif kind is bytes:
            data = pending
        else:
            data = b"".join([p if type(p) is bytes else p.data for p in pending])  # type: ignore[union-attr]
        try:
            sent = self.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.pending = None
            self.broken()
            return
        if sent == len(data):
            self.pending = None
            if self.closing:
                self.drained()
        else:
            self.stall(pending, sent)

    def stall(self, pending: bytes | Image | list[bytes | Image], sent: int) -> None:
        """The socket is full: keep the rest, and let the readiness loop say when to go on."""
        pieces = pending if type(pending) is list else [pending]
        self.pending = _after(pieces, sent) if sent >= 0 else []  # type: ignore[arg-type]
        self.queued_bytes = sum(map(size_of, self.pending))
        self.stalled = True
        self.progress_at = self.node.now()
        self.node.stalled.add(self)
        self.rearm()
        if self.queued_bytes > self.node.options.high_bytes and not self.closing:
            self._degrade()

    def on_writable(self) -> None:
        """The socket has room again: send on, until it is full or nothing is left."""
        pieces = self.pending
        if not self.stalled:
            return
        assert type(pieces) is list
        while True:
            data = _take(pieces)
            try:
                sent = self.send(data)
            except BlockingIOError:
                return
            except OSError:
                self.broken()
                return
            self.progress_at = self.node.now()
            if sent < 0:
                sent = len(data)
                full = True
            else:
                full = sent < len(data)
            pieces[:] = _after(pieces, sent)
            self.queued_bytes -= sent
            if full:
                return
            if not pieces:
                break
        self.pending = None
        self.queued_bytes = 0
        self.stalled = False
        self.node.stalled.discard(self)
        self.rearm()
        if self.closing:
            self.drained()

    # Slow consumers

    def _degrade(self) -> None:
        """Replace the busiest conversations' entries by `behind`, down to half the high mark."""
        pieces = self.pending
        assert type(pieces) is list
        weights: defaultdict[Source, int] = defaultdict(int)
        for piece in pieces:
            if type(piece) is Image:
                weights[piece.source] += len(piece.data)
        target = self.node.options.high_bytes // 2
        busiest: dict[Source, None] = {}
        for source in sorted(weights, key=weights.__getitem__, reverse=True):
            if self.queued_bytes <= target:
                break
            busiest[source] = None
            self.queued_bytes -= weights[source]
        pieces[:] = [p for p in pieces if type(p) is bytes or p.source not in busiest]  # type: ignore[union-attr]
        for source in busiest:
            if self.closing:
                return  # the words about falling behind went over the hard mark
            self.fall_behind(source)
        self._cut_above_hard_mark()

    def _cut_above_hard_mark(self) -> None:
        if self.queued_bytes > self.node.options.hard_bytes and not self.closing:
            self.node.counters.slow_cut += 1
            self.bye(ByeCode.SLOW_CONSUMER)

    def fall_behind(self, source: Source) -> None:
        """No more live entries of this conversation until the client has pulled what it lacks."""
        source.unsubscribe(self)
        self.stay_behind(source.name)
        self.node.counters.behind += 1
        self.push_event({"t": "behind", "conv": source.name, "head": source.head})

    def stay_behind(self, conv: str) -> None:
        """Likewise, and the client need not be told now."""
        if self.behind is None:
            self.behind = set()
        self.behind.add(conv)

    def no_longer_behind(self, conv: str) -> None:
        """The client has what it lacked of this conversation, or may not have it any more."""
        if self.behind:
            self.behind.discard(conv)
            if not self.behind:
                self.behind = None

    def reached(self, conv: str, seq: int, head: int) -> None:
        """A reply told the client of everything up to `seq`, and that there is no more than `head`.

        Is it live again? What tells it now need not be what has answered: conversations move.
        """
        if self.closing or seq < head or not self.behind or conv not in self.behind:
            return
        live: Live | None = self.node.registry.live(conv)
        if live is not None and live.told > head and self.user in live.members:
            self.fall_behind(live)  # there is more by now, which was told without it
            return
        self.no_longer_behind(conv)
        if live is not None and self.user in live.members:
            live.subscribe(self)

    def drop_queue(self) -> None:
        """Forget what waits, except the rest of a piece that the peer has the beginning of."""
        if type(self.pending) is list and self.stalled:
            del self.pending[1:]
            self.queued_bytes = sum(map(size_of, self.pending))

    # The other half

    def rearm(self) -> None:
        """Tell the readiness loop what is waited for now: writing, while `stalled`."""
        raise NotImplementedError

    def broken(self) -> None:
        """The socket failed."""
        raise NotImplementedError

    def drained(self) -> None:
        """All was sent and the connection is closing."""
        raise NotImplementedError

    def bye(self, code: ByeCode, after_ms: int | None = None) -> None:
        """End the connection with a last frame."""
        raise NotImplementedError


def size_of(piece: bytes | Image) -> int:
    """Bytes on the wire."""
    return len(piece) if type(piece) is bytes else len(piece.data)  # type: ignore[union-attr]


def _after(pieces: list[bytes | Image], sent: int) -> list[bytes | Image]:
    """What is left when the first `sent` bytes are gone; a cut piece loses its source."""
    for index, piece in enumerate(pieces):
        size = size_of(piece)
        if sent < size:
            if sent == 0:
                return pieces[index:]
            data = piece if type(piece) is bytes else piece.data  # type: ignore[union-attr]
            return [data[sent:], *pieces[index + 1 :]]
        sent -= size
    return []


def _take(pieces: list[bytes | Image]) -> bytes:
    """The first pieces, joined, up to about `SEND_MAX_BYTES`; they stay in the list."""
    taken: list[bytes] = []
    size = 0
    for piece in pieces:
        data = piece if type(piece) is bytes else piece.data  # type: ignore[union-attr]
        taken.append(data)
        size += len(data)
        if size >= SEND_MAX_BYTES:
            break
    return b"".join(taken)
