"""Who has a session on this node, as all others are told, and as the presence store keeps it.

Users are announced before their session opens, and it opens when every node that can be reached
knows of it: from then on nothing that happens in their conversations can pass them by. Where that
takes too long it opens all the same, and the user is *late*: what a conversation's owner tells them
first may not follow on what they know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import trio

from actors.cluster import words as w
from actors.cluster.beliefs import Beliefs
from actors.cluster.rounds import Marks
from actors.faults import log_outage
from storage.errors import Unavailable

if TYPE_CHECKING:
    from actors.cluster.cluster import Cluster
    from storage.shared import PresenceStore

ANNOUNCE_TIMEOUT_S = 2.0
"""A session opens after this all the same, and its user is late."""
KEEP_ALIVE_PERIOD_S = 1.0
KEEP_ALIVES_PER_LEASE = 5
"""At least: what the store keeps of a node ends with a lease in which it heard nothing."""
NEVER = float("-inf")
"""Before all times."""
UPDATE_MAX_USERS = 10_000
"""Users in one update of the presence store."""


class Here:
    def __init__(self, cluster: Cluster, store: PresenceStore, *, ttl_ms: int) -> None:
        self._cluster = cluster
        self._store = store
        self._ttl_ms = ttl_ms
        self._period_s = min(KEEP_ALIVE_PERIOD_S, ttl_ms / 1000 / KEEP_ALIVES_PER_LEASE)
        self._users: dict[int, bool] = {}
        self._changed: dict[int, bool] = {}
        """What the store has yet to be told: whether they are here."""
        self._announcing: Counter[int] = Counter()
        """Whose sessions wait for all others to know of them."""
        self._late: dict[int, float] = {}
        """When the sessions began of which some node was not known to know."""
        self._all_late = NEVER
        self._progress = trio.Event()
        self._work = trio.Event()
        self._beliefs = Beliefs(cluster)

    def __contains__(self, user: int) -> bool:
        return user in self._users

    def __len__(self) -> int:
        return len(self._users)

    def all(self) -> tuple[list[int], list[int]]:
        """Everybody, and those who hide."""
        return list(self._users), [user for user, hidden in self._users.items() if hidden]

    # Coming and going

    async def announce(self, users: Mapping[int, bool]) -> None:
        """Say that these users (and whether they hide) are about to have a session here."""
        self.arrived(users)
        self._announcing.update(users.keys())
        try:
            if not await self._settled(users):
                self._late |= dict.fromkeys(users, self._cluster.node.now())
        finally:
            self._announcing.subtract(users.keys())
            self._announcing = +self._announcing

    def arrived(self, users: Mapping[int, bool]) -> None:
        """Likewise, without waiting until everybody knows."""
        new = {user: hidden for user, hidden in users.items() if user not in self._users}
        if not new:
            return
        self._users |= new
        self._beliefs.compare(new)
        hiding = [user for user, hidden in new.items() if hidden]
        self._cluster.tell_all(w.Here(list(new), hiding))
        self._note(dict.fromkeys(new, True))

    def hides(self, user: int) -> bool | None:
        """Whether nobody may learn that a user is here; None if they are not."""
        return self._users.get(user)

    def compare(self, users: Iterable[int]) -> None:
        """Another node has said of these whether they hide."""
        self._beliefs.compare(users)

    def withdraw(self, users: Iterable[int]) -> None:
        """Sessions that were announced did not come about; others of these users may."""
        for user in users:
            if user not in self._cluster.node.registry.sessions and not self._announcing[user]:
                self.departed(user)

    def late(self, user: int) -> bool:
        """Whether entries may have been told elsewhere since the user's session began, by a node
        that did not know of it."""
        if not self._cluster.placement.good():
            return True  # others may hold this node for dead, and tell nobody here
        since = max(self._late.get(user, NEVER), self._all_late)
        if since > NEVER and since >= self._cluster.rounds.settled:
            return True
        self._late.pop(user, None)
        return False

    def all_late(self) -> None:
        """A node that knew everybody may have forgotten them for a while."""
        self._all_late = self._cluster.node.now()

    def departed(self, user: int) -> None:
        """The user's last session here is over."""
        if self._users.pop(user, None) is None:
            return
        self._late.pop(user, None)
        self._cluster.tell_all(w.Gone([user], self._cluster.node.now_ms()))
        self._note({user: False})
        registry = self._cluster.node.registry
        for follower in registry.followers_of(user):
            follower.expel(user)
            if not follower.members:
                self._cluster.following.drop(follower)

    def hide(self, user: int, hidden: bool) -> None:
        """Whether others may learn that the user is here; or something else of them has changed."""
        self.changed(user, hidden)
        self._cluster.tell_all(w.Changed([user], hidden))

    def changed(self, user: int, hidden: bool) -> None:
        """Likewise, as another node has told us."""
        self._beliefs.settled(user)
        if user in self._users:
            self._users[user] = hidden
            self._cluster.node.registry.hide(user, hidden)
        for peer in [*self._cluster.node.registry.peers_of(user)]:
            peer.arrived([user], [user] if hidden else [])
        self._cluster.node.presence.changed(user)

    def confirmed(self) -> None:
        """A peer has confirmed something, or is no longer waited for."""
        self._progress.set()
        self._progress = trio.Event()

    async def _settled(self, users: Iterable[int]) -> bool:
        """Wait until all peers within reach have heard what was said so far, and the store too.
        Whether all peers have."""
        marks = Marks(self._cluster)
        with trio.move_on_after(ANNOUNCE_TIMEOUT_S):
            while marks.awaited or any(user in self._changed for user in users):
                await self._progress.wait()
        return marks.passed

    # The presence store

    def _note(self, changes: dict[int, bool]) -> None:
        self._changed |= changes
        self._work.set()

    async def run(self) -> None:
        """Keep the store told; where it has lost what it was told, tell all of it again."""
        inbox = self._cluster.inbox
        known = False
        try:
            while True:
                self._work = trio.Event()
                try:
                    if not await self._store.keep_alive(inbox, self._ttl_ms) or not known:
                        self._changed |= dict.fromkeys(self._users, True)
                    await self._update()
                    known = True
                except Unavailable as error:
                    known = False
                    log_outage(error)
                    await trio.sleep(self._period_s)
                with trio.move_on_after(self._period_s):
                    if not self._changed:
                        await self._work.wait()
        finally:
            self.confirmed()

    async def _update(self) -> None:
        while self._changed:
            some = dict(list(self._changed.items())[:UPDATE_MAX_USERS])
            here = [user for user, there in some.items() if there]
            gone = [user for user, there in some.items() if not there]
            await self._store.update(self._cluster.inbox, here=here, gone=gone)
            for user, there in some.items():
                if self._changed.get(user) is there:
                    del self._changed[user]
        self.confirmed()

    async def online(self, users: list[int]) -> set[int]:
        """Who of these has a session anywhere. Raises `Unavailable`."""
        return await self._store.online(users)

    async def forget(self) -> None:
        """This node is about to end."""
        try:
            await self._store.forget(self._cluster.inbox)
        except Unavailable as error:
            log_outage(error)
