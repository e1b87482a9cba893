"""What a node knows of its cluster, for those who look. Reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.cluster.cluster import Cluster
    from actors.cluster.peer import Peer


def status(cluster: Cluster) -> dict[str, object]:
    """Nodes, slots, leases and links; times in milliseconds."""
    placement = cluster.placement
    owners: dict[str, int] = {}
    for slot in placement.table:
        owners[slot.owner] = owners.get(slot.owner, 0) + 1
    return {
        "clustered": True,
        "node": placement.me.node,
        "incarnation": placement.me.incarnation,
        "lease_good": placement.good(),
        "lease_ms": round(placement.lease_s * 1000),
        "slots_owned": len(placement.owned),
        "slots_unowned": sum(n for owner, n in owners.items() if owner not in placement.seen),
        "routes_waiting": cluster.commands_waiting(),
        "followers": len(cluster.following),
        "nodes": [_node(cluster, inc, owners) for inc in sorted(placement.seen)],
    }


def _node(cluster: Cluster, incarnation: str, owners: dict[str, int]) -> dict[str, object]:
    now = cluster.node.now()
    seen = cluster.placement.seen[incarnation]
    record = seen.record
    peer = cluster.peers.get(record.inbox)
    return {
        "node": record.node,
        "incarnation": incarnation,
        "this": record.inbox == cluster.inbox,
        "draining": record.draining,
        "http": record.http,
        "tcp": record.tcp,
        "started": record.started_ms,
        "connections": record.connections,
        "conversations": record.conversations,
        "slots": owners.get(incarnation, 0),
        "beat": record.beat,
        "beat_age_ms": round((now - seen.since) * 1000),
        "lag_ms": record.lag_ms,
        "users": len(peer.users) if peer is not None else len(cluster.here),
        "link": _link(cluster, peer, incarnation, now) if peer is not None else None,
    }


def _link(cluster: Cluster, peer: Peer, incarnation: str, now: float) -> dict[str, object]:
    return {
        "in_step": peer.link.in_step(now),
        "session": peer.link.session,
        "sent": peer.link.number,
        "confirmed": peer.link.confirmed,
        "lag_ms": round(peer.link.lag_s(now) * 1000),
        "silent_ms": round(cluster.silence.seconds(incarnation, now) * 1000),
    }
