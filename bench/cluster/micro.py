"""What a node pays for others: memory for a user elsewhere, time for an envelope.

    python -m bench.cluster.micro

Real nodes and links over a bus in memory: it leaves out the kernel, Redis and every message. The
figures are those that docs/scaling.md multiplies.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable

import trio
from msgspec import Raw

from actors.cluster import words as w
from actors.cluster.cluster import Cluster
from actors.cluster.hearing import hear
from actors.cluster.peer import Peer
from actors.node import Node
from bench import machine
from storage.memory import MemoryLeases, MemoryNetwork, MemoryPresence, MemoryStore

USERS = 1_000_000
AT_ONCE = 1_000
"""Users in one word."""
ENVELOPES = 20_000
ROUNDS = 5
LEASE_MS = 10_000


def two_ends() -> tuple[Peer, Peer]:
    """Two nodes as each other sees them. Nothing runs."""
    network = MemoryNetwork()
    leases = MemoryLeases()
    ends = []
    for name, other in (("a", "b"), ("b", "a")):
        node = Node(MemoryStore())
        node.cluster = Cluster(
            node,
            name=name,
            inbox=name,
            leases=leases,
            bus=network.bus(name),
            presence=MemoryPresence(node.now),
            lease_ms=LEASE_MS,
        )
        ends.append(node.cluster.peer(other))
    return ends[0], ends[1]


def users_elsewhere() -> tuple[float, float]:
    """Bytes and microseconds of each user that is connected to another node."""
    peer, _ = two_ends()
    encoded = [
        w.encode(w.Sealed("b", 1, 1, 0, 0, [_raw(w.Here(list(range(at, at + AT_ONCE)), []))]))
        for at in range(1, USERS, AT_ONCE)
    ]
    gc.collect()
    before, began = machine.private_kib(os.getpid()), time.perf_counter()
    for data in encoded:
        for word in w.decode(data).words:
            hear(peer.cluster, peer, word)
    took = time.perf_counter() - began
    grown = machine.private_kib(os.getpid()) - before
    return grown * 1024 / USERS, took / USERS * 1e6


def _raw(word: w.AnyWord) -> Raw:
    return Raw(w.encode(word))


def envelopes() -> tuple[float, float]:
    """Microseconds to send and to take an envelope that says nothing, as each link does."""
    here, there = two_ends()
    here.begin([], [])
    here.flush()
    sealed = [here.link.seal([], 0.0) for _ in range(ENVELOPES)]
    encoded = [w.encode(envelope) for envelope in sealed]

    def send() -> None:
        for _ in range(ENVELOPES):
            w.encode(here.link.seal([], 0.0))

    def take() -> None:
        for data in encoded:
            there.link.hear(w.decode(data), 0.0)

    return _least(send) / ENVELOPES * 1e6, _least(take) / ENVELOPES * 1e6


def _least(work: Callable[[], None]) -> float:
    """Seconds; the least of some rounds, so that a busy machine does not matter."""
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return min(took)


async def main() -> None:
    size, arrival = users_elsewhere()
    print(f"a user elsewhere: {size:,.0f} bytes, {arrival:.2f} µs to hear of")
    sending, taking = envelopes()
    print(f"an envelope that says nothing: {sending:.2f} µs to send, {taking:.2f} µs to take")


if __name__ == "__main__":
    trio.run(main)
