"""The load client's fast loop: publishers that keep messages in flight, members who count.

One thread, one epoll, no coroutine: at a million deliveries a second each of them may cost a
`recv` and little else. So most members count bytes or marks; a few parse everything. It measures
nothing by itself: who runs it reads the counters before and after.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections import deque
from collections.abc import Callable

from bench import wire
from bench.opening import Stalled
from bench.wire import Publish, Transport

RECV_BYTES = 65_536
SMALL_RECV_BYTES = 32_768
EVENTS_MAX = 512
STALL_S = 10.0
SAMPLES_MAX = 1_000_000
STAMP = re.compile(rb"p\d{4}\.(\d{%d})" % wire.STAMP_DIGITS)


class HungUp(Exception):
    """The server ended a connection in the middle of the load."""


class Clock:
    """The time of the current pass of the loop, and the latencies that it makes up.

    A pass takes its time once, so a latency includes the wait for the load client itself.
    """

    __slots__ = ("acks", "deliveries", "now", "sampling", "stamp")

    def __init__(self) -> None:
        self.sampling = False
        self.acks: list[int] = []
        self.deliveries: list[int] = []
        self.tick()

    def tick(self) -> int:
        """Begin a pass."""
        self.now = now = time.monotonic_ns()
        self.stamp = wire.stamp(now)
        return now

    def acked(self, sent: int) -> None:
        """Note how long a message took to be answered."""
        if self.sampling and len(self.acks) < SAMPLES_MAX:
            self.acks.append(self.now - sent)

    def delivered(self, chunk: bytes) -> None:
        """Note how old the messages in a chunk of stamped deliveries are."""
        if self.sampling and len(self.deliveries) < SAMPLES_MAX:
            now = self.now
            self.deliveries.extend([now - int(sent) for sent in STAMP.findall(chunk)])


class MarkCounter:
    """Counts a mark in a stream that comes in pieces."""

    __slots__ = ("count", "mark", "tail")

    def __init__(self, mark: bytes) -> None:
        self.mark = mark
        self.tail = b""
        self.count = 0

    def feed(self, chunk: bytes) -> int:
        """How many more there are; one that is cut by the edge of a chunk counts once."""
        data = self.tail + chunk
        found = data.count(self.mark)
        self.count += found
        # One byte short of a mark: it can hold the begin of one, but never a whole one again.
        self.tail = data[1 - len(self.mark) :]
        return found


class ByteMember:
    """A member who only counts bytes, into a buffer that all of them share.

    `unread`: the kernel drops them without a copy, and only says how many there were.
    """

    __slots__ = ("buffer", "bytes", "flags", "receive", "sock")

    def __init__(self, sock: socket.socket, buffer: bytearray, *, unread: bool = False) -> None:
        self.sock = sock
        self.receive = sock.recv_into
        self.buffer = buffer
        self.flags = socket.MSG_TRUNC if unread else 0
        self.bytes = 0

    def ready(self) -> None:
        """Take what is there."""
        if not (size := self.receive(self.buffer, 0, self.flags)):
            raise HungUp("the server ended a member's connection")
        self.bytes += size


class MarkMember:
    """A member who counts deliveries."""

    __slots__ = ("messages", "sock")

    def __init__(self, sock: socket.socket, mark: bytes) -> None:
        self.sock = sock
        self.messages = MarkCounter(mark)

    def ready(self) -> None:
        """Take what is there."""
        if not (chunk := self.sock.recv(SMALL_RECV_BYTES)):
            raise HungUp("the server ended a member's connection")
        self.messages.feed(chunk)


class SampleMember:
    """A member who looks at each delivery: counts, ages and, where there is a `seq`, its order."""

    __slots__ = ("bytes", "clock", "last", "messages", "order", "rest", "sock", "transport")

    def __init__(
        self, sock: socket.socket, mark: bytes, clock: Clock, parses: Transport | None
    ) -> None:
        self.sock = sock
        self.clock = clock
        self.transport = parses
        self.messages = MarkCounter(mark)
        self.bytes = 0
        self.rest = b""
        self.last = 0
        self.order: list[str] = []

    def ready(self) -> None:
        """Take what is there."""
        if not (chunk := self.sock.recv(RECV_BYTES)):
            raise HungUp("the server ended a sampled member's connection")
        self.bytes += len(chunk)
        self.messages.feed(chunk)
        self.clock.delivered(chunk)
        if self.transport:
            payloads, self.rest = wire.split(self.rest + chunk, self.transport)
            for payload in payloads:
                self._check(wire.decode(payload))

    def _check(self, event: dict[str, object]) -> None:
        if event.get("t") != "msg":
            self.order.append(f"unexpected event {str(event)[:200]}")
            return
        seq = event["seq"]
        assert isinstance(seq, int)
        if self.last and seq != self.last + 1:
            self.order.append(f"seq {seq} after {self.last}")
        self.last = seq


class Publisher:
    """Keeps `in_flight` messages unanswered; it is a member too, and counts its deliveries."""

    __slots__ = (
        "acks",
        "clock",
        "messages",
        "publish",
        "sent",
        "sock",
        "stamps",
        "unsent",
        "watch",
    )

    def __init__(
        self,
        sock: socket.socket,
        publish: Publish,
        message_mark: bytes,
        ack_mark: bytes,
        clock: Clock,
        watch: Callable[[socket.socket, bool], None],
    ) -> None:
        self.sock = sock
        self.publish = publish
        self.messages = MarkCounter(message_mark)
        self.acks = MarkCounter(ack_mark)
        self.clock = clock
        self.watch = watch
        self.stamps: deque[int] = deque()
        self.sent = 0
        self.unsent = b""

    def send(self, count: int) -> None:
        """Publish so many more."""
        clock, publish, first = self.clock, self.publish, self.sent
        self.sent = last = first + count
        self.stamps.extend([clock.now] * count)
        data = b"".join([publish(n, clock.stamp) for n in range(first, last)])
        if self.unsent:
            self.unsent += data
        else:
            self._write(data)

    def _write(self, data: bytes) -> None:
        try:
            written = self.sock.send(data)
        except BlockingIOError:
            written = 0
        had, self.unsent = bool(self.unsent), data[written:]
        if had != bool(self.unsent):
            self.watch(self.sock, bool(self.unsent))

    def writable(self) -> None:
        """Go on writing."""
        self._write(self.unsent)

    def ready(self) -> int:
        """Take what is there; how many messages were answered."""
        if not (chunk := self.sock.recv(RECV_BYTES)):
            raise HungUp("the server ended a publisher's connection")
        self.messages.feed(chunk)
        answered = self.acks.feed(chunk)
        if answered:
            popleft, clock = self.stamps.popleft, self.clock
            if answered > len(self.stamps):
                raise wire.ProtocolError("more answers than messages")
            for _ in range(answered):
                clock.acked(popleft())
        return answered


class Loop:
    """The epoll loop over all members of one job."""

    def __init__(self, clock: Clock, *, pause_s: float = 0.0) -> None:
        self.clock = clock
        self.publishing = False
        self._pause_s = pause_s
        self.publishers: dict[int, Publisher] = {}
        self._members: list[Callable[[], None] | None] = []
        self._poll = select.epoll()

    def add_member(self, member: ByteMember | MarkMember | SampleMember) -> None:
        """Listen for a member."""
        self._add(member.sock, member.ready)

    def add_publisher(self, publisher: Publisher, in_flight: int) -> None:
        """Listen for a publisher; it starts with `start`."""
        fd = publisher.sock.fileno()
        self.publishers[fd] = publisher

        def ready() -> None:
            answered = publisher.ready()
            if answered and self.publishing:
                publisher.send(answered)

        self._add(publisher.sock, ready)
        self._in_flight = in_flight

    def _add(self, sock: socket.socket, ready: Callable[[], None]) -> None:
        fd = sock.fileno()
        self._members.extend([None] * (fd + 1 - len(self._members)))
        self._members[fd] = ready
        self._poll.register(fd, select.EPOLLIN)

    def watch(self, sock: socket.socket, writing: bool) -> None:
        """Wait, or no longer wait, until a socket can be written."""
        self._poll.modify(sock, select.EPOLLIN | (select.EPOLLOUT if writing else 0))

    def start(self) -> None:
        """Let every publisher fill its window."""
        self.publishing = True
        self.clock.tick()
        for publisher in self.publishers.values():
            publisher.send(self._in_flight)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Serve the sockets for a time, or until a condition holds.

        Raises `HungUp`, `ProtocolError`; `Stalled` when messages are in flight and nothing comes.
        """
        poll, members, clock, readable = self._poll.poll, self._members, self.clock, select.EPOLLIN
        deadline = clock.tick() + int(seconds * 1e9)
        heard = clock.now
        while clock.now < deadline and not until():
            events = poll(min(0.1, (deadline - clock.now) / 1e9), EVENTS_MAX)
            now = clock.tick()
            for fd, event in events:
                if event == readable:
                    members[fd]()  # type: ignore[misc]
                else:
                    self._unusual(fd, event)
            if events:
                heard = now
                if self._pause_s:
                    time.sleep(self._pause_s)
            elif self.publishing and now - heard > STALL_S * 1e9:
                raise Stalled(f"nothing came for {STALL_S:g} s with messages in flight")

    def _unusual(self, fd: int, event: int) -> None:
        if event & select.EPOLLOUT and fd in self.publishers:
            self.publishers[fd].writable()
        if event & ~select.EPOLLOUT and (ready := self._members[fd]) is not None:
            ready()

    def settle(self, quiet_s: float, limit_s: float) -> None:
        """Serve the sockets until nothing has come for `quiet_s`; `Stalled` after `limit_s`."""
        end = time.monotonic() + limit_s
        while self._poll.poll(quiet_s, 1):
            if time.monotonic() > end:
                raise Stalled(f"the server is not quiet after {limit_s:g} s")
            self.run(quiet_s)

    @property
    def in_flight(self) -> int:
        """Messages that wait for their answer."""
        return sum(len(publisher.stamps) for publisher in self.publishers.values())

    def close(self) -> None:
        """Let go of the epoll object; the sockets belong to who opened them."""
        self._poll.close()
