"""How one user's conversations stand: head, marks, unread. What lists and `sync` are made of.

For an active conversation the actor knows; for others the store does. Everything is bounded by the
heads that were known while the user was a member, so that nobody sees what came after they left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from actors.images import message_event
from actors.memory import count_unread
from broker.wire.limits import UNREAD_WINDOW_ENTRIES
from storage.names import direct_users

if TYPE_CHECKING:
    from actors.cluster.heads import MemberHead
    from actors.connection import Connection
    from actors.conversation import Conversation
    from actors.node import Node
    from storage.records import Membership

PREVIEW_ENTRIES = 16
"""Read for the newest one and, where no more are unread, to count them without a second look."""


class Standing(Struct):
    """One conversation of one user, as it is now. Times are milliseconds since 1970."""

    node: Node
    user: int
    membership: Membership
    head: int
    ts: int
    read: int

    @property
    def conv(self) -> str:
        return self.membership.conv

    @property
    def first(self) -> int:
        """The oldest seq that the user may read."""
        return self.membership.since if self.membership.history == "joined" else 1

    @property
    def read_from(self) -> int:
        """What came up to here is not unread: seen, or from before they came."""
        return max(self.read, self.membership.since)

    @property
    def hidden(self) -> bool:
        settings = self.membership.settings
        return settings is not None and 0 < self.head <= settings.hidden

    @property
    def pinned(self) -> bool:
        return self.membership.settings is not None and self.membership.settings.pinned

    @property
    def muted(self) -> bool:
        return self.membership.settings is not None and self.membership.settings.muted

    @property
    def other(self) -> int | None:
        """The other user of a direct conversation; None for a group."""
        return next((user for user in direct_users(self.conv) if user != self.user), None)

    async def entries(self, after: int, limit: int) -> list[bytes]:
        """The oldest payloads with seq > after that the user may read."""
        after = max(after, self.first - 1)
        count = min(limit, self.head - after)
        if count <= 0:
            return []
        actor = active(self.node, self.conv)
        held = actor.recent.between(after, after + count) if actor is not None else None
        if held is not None:
            return held
        return await self.node.store.read(self.conv, after=after, limit=count)

    async def unread(self, held: list[bytes] | None = None) -> tuple[int, int]:
        """Messages by others that are unread, and mentions among them; counted over a window.

        `held` are the newest payloads, where the caller has them already.
        """
        after = max(self.read_from, self.head - UNREAD_WINDOW_ENTRIES)
        count = self.head - after
        if count <= 0:
            return 0, 0
        actor = active(self.node, self.conv)
        if actor is not None:
            return actor.recent.unread(self.user, self.read_from)
        if held is None or len(held) < count:
            held = await self.entries(after, count)
        return count_unread(held[-count:], self.user)

    async def summary(self) -> dict[str, object]:
        """What every list tells of a conversation."""
        newest = await self.entries(self.head - PREVIEW_ENTRIES, PREVIEW_ENTRIES)
        unread, mentions = await self.unread(newest)
        return {
            "conv": self.conv,
            "head": self.head,
            "last": message_event(self.conv, newest[-1], self.user) if newest else None,
            "read": self.read,
            "unread": unread,
            "mentions": mentions,
            "muted": self.muted,
        }


async def standings(
    connection: Connection, past: Mapping[str, int] | None = None
) -> list[Standing]:
    """All of the caller's conversations, in no order. One look into the store, and of what other
    nodes have in hand, one question to each. Raises `Unavailable`.

    With `past`, those may be missing that have no entry beyond it.
    """
    node = connection.node
    memberships = await node.store.memberships(connection.user, past=past)
    if node.cluster is not None:
        # Again, since meanwhile one that was active here may have gone to another node.
        while elsewhere := [m for m in memberships if m.head.open and not active(node, m.conv)]:
            heads = await node.cluster.heads.of(connection.user, [m.conv for m in elsewhere])
            known = [m for m in memberships if m.conv not in heads]
            memberships = known + [m for m in elsewhere if _still_good(m, heads[m.conv])]
    found = []
    for membership in memberships:
        standing = stand(node, connection.user, membership)
        if standing is not None:
            found.append(standing)
    return found


def _still_good(membership: Membership, found: MemberHead) -> bool:
    """Whether the user is a member still; the head, and when they came, are what is found."""
    if found.since is None:
        return False
    membership.head, membership.since = found.head, found.since
    return True


def stand(node: Node, user: int, membership: Membership) -> Standing | None:
    """How it stands now; None if the user is out by now."""
    head, ts, read = membership.head.seq, membership.head.ts, membership.read
    actor = active(node, membership.conv)
    if actor is not None:
        member = actor.members.get(user)
        if member is None:
            return None
        membership.since = member.since  # they may have left and come again
        # What the store has and readers may not know of yet is told live in a moment.
        head, ts = actor.head, actor.ts
        mark = actor.marks.get(user)
        if mark is not None:
            read = mark.read
    return Standing(node, user, membership, head, ts, read)


def active(node: Node, conv: str) -> Conversation | None:
    """The actor of a conversation, if it knows its state."""
    actor = node.registry.conversations.get(conv)
    return actor if actor is not None and actor.loaded else None
