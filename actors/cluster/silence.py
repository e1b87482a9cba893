"""Nodes that live, as the leases tell, and that the bus brings nothing of.

For a moment that is a node that has just come, for a while a bus that is away. For good, it is two
nodes on different Redis servers: they look like one cluster and never hear each other.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from actors.cluster.link import CONTACT_S, RESTART_AFTER_MAX_S

if TYPE_CHECKING:
    from actors.cluster.cluster import Cluster

log = logging.getLogger("parley.cluster")

TOLD_AFTER_LEASES = 3
"""So many leases of silence are told."""
TOLD_AFTER_MIN_S = RESTART_AFTER_MAX_S + CONTACT_S
"""Not before the links had time to find each other again."""


class Silence:
    """Times are seconds of the node's own clock."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._since: dict[str, float] = {}
        """By incarnation, of those that live and are silent."""
        self._told: set[str] = set()

    def look(self, now: float) -> None:
        """See who is silent; say so once of each, until it was heard."""
        placement = self._cluster.placement
        self._since = {
            incarnation: self._since.get(incarnation, now)
            for incarnation, seen in placement.seen.items()
            # A beat that stands still says nothing of who lives: the store may be away.
            if placement.beats(seen, now) and self._silent(seen.record.inbox, now)
        }
        self._told &= self._since.keys()
        told_after_s = max(TOLD_AFTER_LEASES * placement.lease_s, TOLD_AFTER_MIN_S)
        for incarnation, since in self._since.items():
            if now - since >= told_after_s and incarnation not in self._told:
                self._told.add(incarnation)
                log.error(
                    "%s lives, but nothing has passed between it and this node for %d s: "
                    "is it on the same Redis?",
                    incarnation,
                    now - since,
                )

    def seconds(self, incarnation: str, now: float) -> float:
        """How long a node has lived in silence, up to now; 0: it is heard."""
        return now - self._since.get(incarnation, now)

    def _silent(self, inbox: str, now: float) -> bool:
        peer = self._cluster.peers.get(inbox)
        return peer is not None and not peer.link.in_step(now)
