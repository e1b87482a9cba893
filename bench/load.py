"""The load client's process: a job comes in on standard input, an outcome goes out (JSON both).

`python -m bench.load`, pinned apart from the server. It knows the server by its port and process
id alone, and reads the server's CPU clock at the very edges of the measured window.
"""

from __future__ import annotations

import gc
import itertools
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import NamedTuple

import msgspec

from bench import machine, opening, stats
from bench.jobs import OPENING_AT_ONCE, Checks, Job, Outcome
from bench.opening import Opened, Script
from bench.peers import Peer, peer
from bench.profiled import START, STOP
from bench.traffic import ByteMember, Clock, Loop, MarkMember, Publisher, SampleMember
from bench.wire import Publish

SPARE_FILES = 200
QUIET_S = 0.3
SETTLE_LIMIT_S = 30.0
IDLE_WARM_CONNECTIONS = 50
IDLE_SETTLE_S = 1.0
BUFFER_BYTES = 1 << 20
LIGHT_PAUSE_S = 0.002
"""Between two looks of a light load client at its sockets, so that each has more for it."""


class Edge(NamedTuple):
    """All counters at one moment."""

    wall: float
    server_cpu: float
    load_cpu: float
    messages: float
    publishes: int
    watched: dict[str, float]

    def to(self, end: Edge, *, publishes: bool) -> Outcome:
        """What happened between two edges."""
        return Outcome(
            count=end.publishes - self.publishes
            if publishes
            else int(end.messages - self.messages),
            publishes=end.publishes - self.publishes,
            elapsed_s=end.wall - self.wall,
            server_cpu_s=end.server_cpu - self.server_cpu,
            load_cpu_s=end.load_cpu - self.load_cpu,
            watched_cpu_s={name: cpu - self.watched[name] for name, cpu in end.watched.items()},
        )


def run(job: Job) -> Outcome:
    """Do one job. Raises `HungUp`, `Stalled`, `ProtocolError`, `OSError`."""
    machine.raise_file_limit(job.connections + SPARE_FILES)
    match job.shape:
        case "idle":
            return _idle(job)
        case "connect":
            return _connect(job)
    return _traffic(job)


def _traffic(job: Job) -> Outcome:
    speaks = peer(job)
    opened = speaks.open(job)
    crowd = Crowd(job, speaks, opened)
    gc.freeze()
    gc.disable()
    with closing(crowd.loop) as loop:
        loop.settle(QUIET_S, SETTLE_LIMIT_S)
        crowd.reset()
        loop.start()
        loop.run(job.warmup_s)
        crowd.clock.sampling = True
        _signal(job, START)
        begin = crowd.edge()
        loop.run(job.window_s)
        end = crowd.edge()
        _signal(job, STOP)
        crowd.clock.sampling = loop.publishing = False
        checks = crowd.drain_and_check()
    for connection in opened:
        opening.abandon(connection.sock)
    return msgspec.structs.replace(
        begin.to(end, publishes=job.shape == "pairs"),
        ack=stats.latency(crowd.clock.acks),
        delivery=stats.latency(crowd.clock.deliveries),
        checks=checks,
    )


def _signal(job: Job, what: signal.Signals) -> None:
    """Tell a profiled server that the window begins or ends."""
    if job.profiled:
        os.kill(job.server_pid, what)


class Crowd:
    """All members of all conversations of a job, and what they add up to."""

    def __init__(self, job: Job, speaks: Peer, opened: list[Opened]) -> None:
        self.job = job
        self.clock = Clock()
        self.loop = Loop(self.clock, pause_s=LIGHT_PAUSE_S if job.light else 0.0)
        self.publishers: list[Publisher] = []
        self.samples: list[SampleMember] = []
        self.counted: list[tuple[int, Publisher | SampleMember | MarkMember]] = []
        """By group: all but those who count bytes alone."""
        self.by_byte: list[ByteMember] = []
        self._speaks = speaks
        self._buffer = bytearray(BUFFER_BYTES)
        for index, (connection, publish) in enumerate(
            zip(opened, speaks.converse(job, opened), strict=True)
        ):
            group = index // job.members
            if publish:
                self._add_publisher(group, connection, publish, speaks.ack_mark(index))
            else:
                self._add_member(group, connection)

    def _add_publisher(
        self, group: int, connection: Opened, publish: Publish, ack_mark: bytes
    ) -> None:
        publisher = Publisher(
            connection.sock,
            publish,
            self._speaks.message_mark,
            ack_mark,
            self.clock,
            self.loop.watch,
        )
        self.publishers.append(publisher)
        self.counted.append((group, publisher))
        self.loop.add_publisher(publisher, self.job.in_flight)

    def _add_member(self, group: int, connection: Opened) -> None:
        """The first few are sampled; of the others, bytes are counted where that says enough."""
        mark = self._speaks.message_mark
        member: SampleMember | ByteMember | MarkMember
        if len(self.samples) < self.job.samples:
            parses = self.job.transport if self._speaks.parses else None
            member = SampleMember(connection.sock, mark, self.clock, parses)
            self.samples.append(member)
            self.counted.append((group, member))
        elif self.job.groups == 1 and self._speaks.same_stream:
            member = ByteMember(connection.sock, self._buffer, unread=self.job.light)
            self.by_byte.append(member)
        else:
            member = MarkMember(connection.sock, mark)
            self.counted.append((group, member))
        self.loop.add_member(member)

    def reset(self) -> None:
        """Forget what came before the first message, as the entries of who joined."""
        for _, member in self.counted:
            member.messages.count = 0
        for sample in self.samples:
            sample.bytes = 0
            sample.order.clear()
        for counter in self.by_byte:
            counter.bytes = 0

    @property
    def message_bytes(self) -> float:
        """The mean size of a delivery, by a member who counts both; 1 before the first."""
        if not self.samples or not self.samples[0].messages.count:
            return 1.0
        return self.samples[0].bytes / self.samples[0].messages.count

    def deliveries(self) -> float:
        """How many messages all members have got so far."""
        total = sum(member.messages.count for _, member in self.counted)
        return total + sum(member.bytes for member in self.by_byte) / self.message_bytes

    def edge(self) -> Edge:
        """The counters now."""
        publishes = sum(publisher.acks.count for publisher in self.publishers)
        return Edge(
            time.monotonic(),
            machine.cpu_seconds(self.job.server_pid),
            time.process_time(),
            self.deliveries(),
            publishes,
            {name: machine.cpu_seconds(pid) for name, pid in self.job.watched.items()},
        )

    def drain_and_check(self) -> Checks:
        """Wait for what is in flight, then compare what came with what was sent."""
        publishes = sum(publisher.sent for publisher in self.publishers)
        wanted = publishes * self.job.members
        self.loop.run(self.job.drain_s, lambda: not self.loop.in_flight)
        self.loop.settle(QUIET_S, self.job.drain_s)
        problems = [problem for sample in self.samples for problem in sample.order[:5]]
        if lost := self.loop.in_flight:
            problems.append(f"{lost} of {publishes} messages were never answered")
        got = round(self.deliveries())
        if got != wanted:
            problems.append(f"{got} deliveries of {wanted}")
        problems += self._unequal()
        return Checks(
            publishes=publishes,
            deliveries=got,
            parsed_members=len(self.samples) if self._speaks.parses else 0,
            problems=problems,
        )

    def _unequal(self) -> Iterator[str]:
        """Member by member, so that one's loss and another's double do not add up."""
        published: Counter[int] = Counter()
        for group, member in self.counted:
            if isinstance(member, Publisher):
                published[group] += member.sent
        if wrong := sum(member.messages.count != published[at] for at, member in self.counted):
            yield f"{wrong} members got more or fewer messages than were sent"
        if self.by_byte:
            wanted = self.samples[0].bytes
            if different := sum(member.bytes != wanted for member in self.by_byte):
                yield f"{different} members got other than {wanted} bytes"


def _idle(job: Job) -> Outcome:
    """What connections that do nothing cost; a few are opened before, so that code is loaded."""
    speaks = peer(job)
    few = msgspec.structs.replace(job, groups=1, members=min(IDLE_WARM_CONNECTIONS, job.members))
    for connection in speaks.open(few):
        opening.abandon(connection.sock)
    time.sleep(IDLE_SETTLE_S)
    cpu, load, wall = machine.cpu_seconds(job.server_pid), time.process_time(), time.monotonic()
    before = machine.private_kib(job.server_pid)
    opened = speaks.open(job)
    time.sleep(IDLE_SETTLE_S)
    added = machine.private_kib(job.server_pid) - before
    outcome = Outcome(
        count=len(opened),
        elapsed_s=time.monotonic() - wall,
        server_cpu_s=machine.cpu_seconds(job.server_pid) - cpu,
        load_cpu_s=time.process_time() - load,
        private_kib=added,
    )
    for connection in opened:
        opening.abandon(connection.sock)
    return outcome


def _connect(job: Job) -> Outcome:
    """Open, say hello, be welcomed, close; again and again."""
    results = opening.run_all(job.host, job.port, _visits(job), at_once=OPENING_AT_ONCE)
    marks: list[tuple[float, float, float]] = []
    count, measured = 0, 0
    end = time.monotonic() + job.warmup_s
    for _ in results:
        count += 1
        if time.monotonic() < end:
            continue
        cpu = machine.cpu_seconds(job.server_pid)
        marks.append((time.monotonic(), cpu, time.process_time()))
        _signal(job, START if len(marks) == 1 else STOP)
        if len(marks) == 2:
            measured = count
            break
        count, end = 0, time.monotonic() + job.window_s
    for _ in results:
        pass
    (wall, cpu, load), (wall_end, cpu_end, load_end) = marks
    return Outcome(
        count=measured,
        elapsed_s=wall_end - wall,
        server_cpu_s=cpu_end - cpu,
        load_cpu_s=load_end - load,
    )


def _visits(job: Job) -> Iterator[Callable[[socket.socket], Script[bool]]]:
    """Visits until the time of the job is over; tokens in turn."""
    stop = time.monotonic() + job.warmup_s + job.window_s + 0.1
    tokens = itertools.cycle(job.tokens)

    def visit(sock: socket.socket) -> Script[bool]:
        yield from opening.parley(sock, next(tokens), job.transport)
        if job.transport == "ws":
            yield from opening.close_websocket(sock)
        opening.abandon(sock)
        return True

    while time.monotonic() < stop:
        yield visit


def main() -> None:
    """Standard input to standard output; a failure is a line on standard error and exit code 1."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    if job.pinned:
        machine.pin(machine.LOAD_CPU)
    sys.stdout.buffer.write(msgspec.json.encode(run(job)))


if __name__ == "__main__":
    main()
