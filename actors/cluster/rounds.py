"""Until when everybody has heard everything: marks at all peers, round after round.

What is said arrives late where the bus or a node stands still, without anybody noticing a loss. So
where something is forgotten because all have heard of it, or held for known because all know it, it
is not the time that has passed that tells, but a round of confirmations. Decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.cluster.cluster import Cluster
    from actors.cluster.peer import Peer


class Marks:
    """Of what was said so far, at all peers that have not left."""

    def __init__(self, cluster: Cluster) -> None:
        peers = [peer for peer in cluster.peers.values() if not peer.link.left]
        self._marks = {peer: peer.mark() for peer in peers}

    @property
    def awaited(self) -> bool:
        """Whether there is somebody within reach who has not passed theirs."""
        return not all(p.passed(mark) or p.out_of_reach(mark) for p, mark in self._marks.items())

    @property
    def passed(self) -> bool:
        """Whether all who have not left meanwhile have passed theirs."""
        return all(peer.passed(mark) or peer.link.left for peer, mark in self._marks.items())


class Rounds:
    """`settled`, by the node's clock: what was said before it is heard by every node that lives,
    and so is what this node said to the words that they had spoken until they heard it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.settled = float("-inf")
        self._heard = float("-inf")
        self._began = float("-inf")
        self._marks: dict[Peer, tuple[int, int]] = {}

    def look(self, now: float) -> None:
        """Begin the next round if all have passed the marks of this one, or never will."""
        peers = [peer for peer in self._cluster.peers.values() if not peer.link.left]
        if self._marks.keys() == set(peers):
            if all(peer.passed(mark) for peer, mark in self._marks.items()):
                # Their words of before came with these confirmations, or earlier; what was said to
                # them here is therefore heard when the round that begins now is over.
                self.settled, self._heard = self._heard, self._began
            elif all(peer.link.session == session for peer, (session, _) in self._marks.items()):
                return
        self._began = now
        self._marks = {peer: peer.sent() for peer in peers}
