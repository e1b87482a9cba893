"""What the load client is asked to do and what it answers: the seam between two processes."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from bench.wire import Transport

System = Literal["parley", "nats", "naive", "floor"]
Shape = Literal["groups", "pairs", "idle", "connect"]

OPENING_AT_ONCE = 50


class Job(Struct, frozen=True, kw_only=True):
    """One measurement of one running server.

    `groups` conversations of `members` each, of whom the first `publishers` publish with
    `in_flight` messages unanswered each. In shape `idle` and `connect`, `members` connections are
    opened and kept, or opened and closed all the time. `tokens` is one a connection, for servers
    that want them.
    """

    system: System
    shape: Shape
    transport: Transport = "ws"
    host: str = "127.0.0.1"
    port: int
    server_pid: int
    groups: int = 1
    members: int
    publishers: int = 0
    in_flight: int = 1
    warmup_s: float = 1.0
    window_s: float = 3.0
    drain_s: float = 60.0
    tokens: list[str] = field(default_factory=list)
    profiled: bool = False
    """The server runs under `bench.profiled`, and is told where the window begins and ends."""
    pinned: bool = True
    """The load client has a core of its own."""
    light: bool = False
    """Members who only count bytes let the kernel drop them unread, and come for them seldom."""
    samples: int = 2
    """Members who look at each delivery."""
    keys_from: int = 0
    """The first key, for conversations that have been written to before."""
    watched: dict[str, int] = field(default_factory=dict)
    """Processes, by name, whose CPU time is wanted."""

    @property
    def connections(self) -> int:
        """How many sockets the job needs at once."""
        return self.groups * self.members if self.shape != "connect" else OPENING_AT_ONCE


class Latency(Struct, frozen=True, kw_only=True):
    """Milliseconds; `samples` many were taken."""

    samples: int
    p50_ms: float
    p99_ms: float


class Checks(Struct, frozen=True, kw_only=True):
    """What was proven after the drain: nothing lost, nothing twice, in order where it was looked.

    `publishes` counts from the first message to the last, warm-up included. `parsed_members` are
    those of whom each entry was decoded and its `seq` compared; the others were counted.
    """

    publishes: int
    deliveries: int
    parsed_members: int
    problems: list[str]


class Outcome(Struct, frozen=True, kw_only=True):
    """What was measured in the window: `count` deliveries, publishes or connections.

    For shape `idle`, `count` is connections and `private_kib` what they added to the server's
    private memory. CPU seconds are of all threads. Memory of the kernel is not counted.
    """

    count: int
    publishes: int = 0
    elapsed_s: float
    server_cpu_s: float
    load_cpu_s: float
    private_kib: float | None = None
    ack: Latency | None = None
    delivery: Latency | None = None
    checks: Checks | None = None
    watched_cpu_s: dict[str, float] = field(default_factory=dict)
    """CPU seconds of each watched process."""
