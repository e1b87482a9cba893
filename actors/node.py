"""What the actors of one process share: stores, registry, turn, flusher, limits, clock, counters.

A plain holder, made by `broker.app`, which also fills in what higher layers provide (the dispatch
tables, the HTTP server). It does nothing by itself.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import trio
from msgspec import Struct

from actors.flusher import Flusher
from actors.presence import Presence
from actors.reader import DESCRIPTOR_BITS, Reader
from actors.registry import Registry
from actors.turn import Turn
from broker.wire.limits import Limits
from broker.wire.opening import HttpOpening
from storage.interfaces import Store

if TYPE_CHECKING:
    from actors.closing import Closing
    from actors.cluster.cluster import Cluster
    from actors.connection import Connection, HttpHandover
    from actors.outbox import Outbox
    from broker.wire.commands import Command

Handler = Callable[["Connection", Any], None]
Table = Mapping[type["Command"], Handler]


class Options(Struct, frozen=True, kw_only=True):
    """Tunables of the actors, each with its unit in its name; see docs/operations.md."""

    heartbeat_ms: int = 30_000
    opening_timeout_ms: int = 10_000
    linger_ms: int = 2_000
    """How long a connection that was told goodbye may take to close its side."""
    max_connections: int = 100_000
    connections_per_user: int = 32
    soft_bytes: int = 256 * 1024
    high_bytes: int = 1024 * 1024
    hard_bytes: int = 4 * 1024 * 1024
    stall_ms: int = 20_000
    passivate_ms: int = 300_000
    max_conversations: int = 100_000
    """Active ones; above it the longest idle are passivated early."""
    mailbox_commands: int = 8_192
    receipts_max_members: int = 200
    presence_coalesce_ms: int = 1_000
    edit_window_ms: int = 24 * 3_600_000
    recall_window_ms: int = 120_000
    sends_per_second: float = 0.0
    """Per user; 0 is off."""
    sends_burst: int = 100


QUERIES_AT_ONCE = 64
"""Clients' questions to the store under way at once, node-wide; far below what a store queues."""


class Counters:
    """What /metrics counts; plain integers, written by whoever does the thing."""

    __slots__ = (
        "accepted",
        "appended",
        "behind",
        "commits",
        "connections_refused",
        "crashes",
        "delivered",
        "ephemeral_dropped",
        "logins",
        "refused",
        "slow_cut",
        "store_failures",
    )

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

    accepted: int
    appended: int
    behind: int
    commits: int
    connections_refused: int
    crashes: int
    delivered: int
    ephemeral_dropped: int
    logins: int
    refused: int
    slow_cut: int
    store_failures: int

    def snapshot(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}


class Node:
    """`tasks` owns the actors' helper tasks; `tables` are (opening, open)."""

    opening_table: Table
    open_table: Table
    http: Callable[[HttpHandover], Awaitable[None]]
    tasks: trio.Nursery

    def __init__(
        self,
        store: Store,
        *,
        limits: Limits | None = None,
        options: Options | None = None,
        name: str | None = None,
        now_ms: Callable[[], int] | None = None,
        allowed_origins: frozenset[str] | None = None,
    ) -> None:
        self.name = name or secrets.token_hex(4)
        self.store = store
        self.limits = limits or Limits()
        self.options = options or Options()
        self.counters = Counters()
        self.now: Callable[[], float] = trio.current_time
        self.tick = self.now()
        """`now()` of the latest pass of the reader or the sweeper: good enough for idleness."""
        self.now_ms: Callable[[], int] = now_ms or _wall_clock_ms
        self.started_ms = self.now_ms()
        self.cluster: Cluster | None = None
        """None where one process is alone."""
        self.flusher = Flusher()
        self.reader = Reader(self)
        self.turn = Turn(self)
        self.registry = Registry(self)
        self.presence = Presence(self)
        self.queries = trio.Semaphore(QUERIES_AT_ONCE)
        """Held by whoever reads the store for a client: a crowd waits instead of failing."""
        self.connections: dict[Connection, None] = {}
        self.opening: dict[Connection, None] = {}
        """In the order of their deadlines."""
        self.lingering: dict[Closing, float] = {}
        self.stalled: set[Outbox] = set()
        self.allowed_origins = allowed_origins
        self.draining = False

    def connection_numbered(self, number: int) -> Connection | None:
        """The connection that other nodes know by this number, if it is still there."""
        connection = self.reader.connection(number & ((1 << DESCRIPTOR_BITS) - 1))
        return connection if connection is not None and connection.number == number else None

    def http_opening(self) -> HttpOpening:
        """What reads the first bytes of a connection on the HTTP port."""
        return HttpOpening(self.allowed_origins)

    def full(self) -> bool:
        """Whether one more client connection would be too many."""
        return len(self.connections) > self.options.max_connections

    def retry_slot_ms(self) -> int:
        """When a client that is sent away should come back: anywhere in a heartbeat."""
        return secrets.randbelow(self.options.heartbeat_ms)


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000
