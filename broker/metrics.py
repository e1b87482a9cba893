"""What Prometheus is shown: the node's counters and sizes, read when it asks.

Nothing is counted here, so nothing is paid for on the way of a message.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from actors.cluster.cluster import Cluster
from actors.node import Node
from actors.wires import WIRES

COUNTERS: dict[str, str] = {
    "accepted": "Connections accepted.",
    "appended": "Entries made durable.",
    "behind": "Times that a conversation of a slow connection turned to `behind`.",
    "commits": "Group commits.",
    "connections_refused": "Connections sent away, there being too many.",
    "crashes": "Defects that were caught and logged.",
    "delivered": "Entries written to connections.",
    "ephemeral_dropped": "Typing and presence events that slow connections missed.",
    "logins": "Connections opened by hello or login.",
    "refused": "Commands answered with an error.",
    "slow_cut": "Connections cut for being slow.",
    "store_failures": "Failures of the store.",
}
"""What each of the node's counters counts."""


class NodeCollector(Collector):
    """Reads one node at each scrape."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterable[Metric]:
        """All metrics, as they are now."""
        node = self._node
        for name, value in node.counters.snapshot().items():
            yield CounterMetricFamily(f"parley_{name}", COUNTERS[name], value=value)
        wires = GaugeMetricFamily("parley_connections", "Connections now.", labels=["wire"])
        for wire, count in connections_by_wire(node).items():
            wires.add_metric([wire], count)
        yield wires
        turn = node.turn.statistics()
        for name, meaning, size in (
            ("opening", "Connections that have not said who they are.", len(node.opening)),
            ("stalled", "Connections whose socket is full.", len(node.stalled)),
            ("users_online", "Users with a connection.", len(node.registry.sessions)),
            ("conversations", "Conversations in memory.", len(node.registry.conversations)),
            ("turn_ready", "Conversations that wait for a turn.", turn.ready),
            ("turn_loading", "Conversations that wait for the store.", turn.loading),
            ("turn_size", "Conversations in the last turn.", turn.conversations_last_turn),
            ("commit_seconds", "Duration of the last group commit.", turn.commit_ms_last / 1000),
            ("draining", "1 while the broker stops.", int(node.draining)),
        ):
            yield GaugeMetricFamily(f"parley_{name}", meaning, value=size)
        yield CounterMetricFamily("parley_turns", "Turns taken.", value=turn.turns)
        yield from _of_cluster(node.cluster)


def _of_cluster(cluster: Cluster | None) -> Iterator[Metric]:
    """What the cluster adds; all 0 where one process is alone."""
    for name, meaning, size in (
        ("slots_owned", "Slots that this node writes.", cluster and len(cluster.placement.owned)),
        ("lease_good", "1 while the lease holds.", cluster and int(cluster.placement.good())),
        ("peers", "Other nodes that live.", cluster and len(cluster.peers)),
        ("lag_seconds", "Age of the oldest word unconfirmed.", cluster and cluster.lag_ms() / 1000),
        ("followers", "Conversations of others, told here.", cluster and len(cluster.following)),
        ("routes_waiting", "Commands with other nodes.", cluster and cluster.commands_waiting()),
    ):
        yield GaugeMetricFamily(f"parley_cluster_{name}", meaning, value=size or 0)


def registry(node: Node) -> CollectorRegistry:
    """The node's metrics, and the process' CPU time, memory and descriptors."""
    made = CollectorRegistry()
    made.register(NodeCollector(node))
    ProcessCollector(registry=made)
    return made


def connections_by_wire(node: Node) -> dict[str, int]:
    """How many connections speak what; those on the HTTP port that have not said yet: `http`."""
    counts = dict.fromkeys((*(wire.name for wire in WIRES), "http"), 0)
    for connection in node.connections:
        counts[connection.speaks] += 1
    return counts


def memory_bytes() -> int:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
