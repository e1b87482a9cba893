"""How the links of a node stand, for tests that wait for it."""

from __future__ import annotations

from actors.cluster.cluster import Cluster


def in_step(cluster: Cluster) -> bool:
    """Whether every node that lives hears what this one says."""
    now = cluster.node.now()
    return all(peer.link.left or peer.link.in_step(now) for peer in cluster.peers.values())
