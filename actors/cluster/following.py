"""The conversations of other nodes that clients here are told of: what their owners say of them.

Words of anybody but the owner that spoke last, or of a lower epoch, are passed over: they were said
before the conversation changed hands.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from actors.cluster import words as w
from actors.cluster.follower import Follower
from actors.images import Drafts

if TYPE_CHECKING:
    from actors.cluster.cluster import Cluster
    from actors.cluster.peer import Peer
    from actors.conversation import Conversation

ORPHAN_S = 600.0
"""A follower whose owner is gone is kept for this long: somebody may take the conversation up."""
DOUBT_S = 60.0
"""If nobody has by then, and the last words may have been lost, those here have to pull: the owner
may have put out the last of them, and then it does not take up anything here."""


DOUBTS_AT_ONCE = 100
"""Conversations of which clients here are told so in one tick; the rest in the next."""


class Following:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._node = cluster.node
        self.followers: dict[str, Follower] = {}

    def __len__(self) -> int:
        return len(self.followers)

    # What owners say

    def join(self, peer: Peer, word: w.Join) -> None:
        """Who here is a member, and from where on they are told."""
        active = self._node.registry.conversations.get(word.conv)
        if active is not None:
            if word.epoch <= max(active.epoch, self._cluster.placement.owned.get(active.slot, 0)):
                return
            self._cluster.placement.lost(f"{word.conv} has another writer")
        follower = self.followers.get(word.conv)
        if follower is not None and word.epoch < follower.epoch:
            return
        users = [user for user in word.users if user in self._cluster.here]
        if follower is None:
            if not users:
                return
            follower = self.followers[word.conv] = Follower(self._cluster, word.conv, word.head)
        follower.owner = peer
        follower.doubt = False
        follower.epoch = word.epoch
        follower.used_at = self._node.now()
        if word.whole:
            self._node.flusher.settle()
            kept = set(users)
            for user in [user for user in follower.members if user not in kept]:
                follower.find_gone(user)
        here = self._cluster.here
        came = dict(zip(word.users, word.came, strict=True))
        new = [user for user in users if follower.admit(user, word.head, came[user])]
        self._doubt(follower, [user for user in new if word.doubt or here.late(user)])
        follower.lack(word.head)
        self.drop_if_empty(follower)

    def _doubt(self, follower: Follower, users: list[int]) -> None:
        """Nobody knows what these were told before."""
        for user in users:
            for connection in self._node.registry.connections_of(user):
                if follower.name not in (connection.behind or ()):
                    connection.fall_behind(follower)

    def part(self, peer: Peer, word: w.Part) -> None:
        """These are members no more."""
        follower = self._of(peer, word.conv)
        if follower is not None:
            self._node.flusher.settle()
            for user in word.users:
                if follower.lags:
                    follower.find_gone(user)  # before they were told all that they might have read
                else:
                    follower.expel(user)
            self.drop_if_empty(follower)

    def close(self, peer: Peer, word: w.Close) -> None:
        """It is put away."""
        follower = self._of(peer, word.conv)
        if follower is not None and follower.lags:
            # What lacks is told here before anything that the next owner says.
            self._orphan(follower)
        elif follower is not None:
            self.drop(follower)

    def batch(self, peer: Peer, word: w.Batch) -> None:
        """New entries."""
        follower = self._of(peer, word.conv)
        if follower is not None:
            authors = [0] * len(word.payloads)  # counted by the owner alone
            follower.batch(word.first, Drafts(word.payloads, word.cuts, word.senders, authors))

    def event(self, peer: Peer, word: w.Event) -> None:
        """An event that is no entry."""
        follower = self._of(peer, word.conv)
        if follower is not None:
            self._node.flusher.settle()
            besides = self._node.connection_numbered(word.besides)
            follower.subscribers.tell(word.event, besides=besides, ephemeral=word.ephemeral)

    def behind(self, peer: Peer, word: w.Behind) -> None:
        """The owner does not know what was told."""
        follower = self._of(peer, word.conv)
        if follower is not None:
            follower.fall_behind(word.head)

    def _of(self, peer: Peer, conv: str) -> Follower | None:
        follower = self.followers.get(conv)
        return follower if follower is not None and follower.owner is peer else None

    # Ends

    def drop(self, follower: Follower) -> None:
        """Nobody here has to be told of it any more."""
        if self.followers.get(follower.name) is follower:
            del self.followers[follower.name]
        follower.end()

    def drop_if_empty(self, follower: Follower) -> None:
        """Likewise, if nobody is left."""
        if not follower.members:
            self.drop(follower)

    def orphan(self, peer: Peer) -> None:
        """An owner is gone, and may have said something that was lost; what its followers know is
        kept for the next."""
        for follower in self.followers.values():
            if follower.owner is peer:
                self._orphan(follower)
                follower.doubt = True

    def _orphan(self, follower: Follower) -> None:
        follower.owner = None
        follower.used_at = self._node.now()

    def look_at_orphans(self, now: float) -> None:
        """Those that nobody has taken up for long."""
        orphans = [follower for follower in self.followers.values() if follower.owner is None]
        # What this node is about to take up tells them itself.
        doubted = (f for f in orphans if f.doubt and f.name not in self._cluster.doubtful)
        alone = (f for f in doubted if now - f.used_at > DOUBT_S)
        for follower in islice(alone, DOUBTS_AT_ONCE):
            follower.doubt = False
            follower.fall_behind(follower.head)
        for follower in orphans:
            if now - follower.used_at > ORPHAN_S:
                self.drop(follower)

    # Changes of hands with this node's own

    def follow_on(self, conversation: Conversation) -> None:
        """A conversation of ours is so no more: the clients here were told up to its head."""
        registry = self._node.registry
        # Not those whose coming is not told yet: that is up to whoever finds it in the log.
        members = [
            member
            for member in conversation.members.values()
            if member.user in registry.sessions and member.since <= conversation.told
        ]
        for user in conversation.members:
            registry.lost_interest(user, conversation)
        if not members:
            return
        follower = Follower(self._cluster, conversation.name, conversation.told)
        follower.epoch = conversation.epoch
        self.followers[conversation.name] = follower
        for member in members:
            follower.admit(member.user, follower.head, member.since)

    def inherit(self, conv: str) -> Follower | None:
        """The follower of a conversation that is ours now; its part is over."""
        return self.followers.pop(conv, None)
