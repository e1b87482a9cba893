"""Who is online: watchers name the users they look at, and get the changes, coalesced.

A session's coming and going is noted by plain calls; one task tells the watchers at most once per
coalescing time, and records when people were last seen, in batches. A user who hides is reported
as offline, never seen. Crash policy: a batch that cannot be stored is kept for the next time.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio

from actors.faults import log_outage
from actors.parking import Parking
from broker.wire.errors import Code, Refusal
from broker.wire.limits import PRESENCE_MAX_USERS
from storage.errors import Unavailable
from storage.records import User

if TYPE_CHECKING:
    from actors.connection import Connection
    from actors.node import Node

UNSTORED_USERS_MAX = 100_000
"""Times of leaving that wait for the store; beyond, the oldest are forgotten."""
LOOKUP_USERS = 200
"""Told in one event; with the longest statuses it is still within the frame limit."""


class Presence:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._watchers: dict[int, dict[Connection, None]] = {}
        self._changed: dict[int, int] = {}
        """Watched users to be told of, and when another node saw them last (0: not known)."""
        self._seen: dict[int, int] = {}
        self._parking = Parking()

    # Coming and going

    def changed(self, user: int, seen_ms: int = 0) -> None:
        """A user came, went, or changed what others may see of them.

        `seen_ms`: when they were last seen on another node, which may not have stored it yet.
        """
        if user in self._watchers:
            self._changed[user] = max(self._changed.get(user, 0), seen_ms)
            self._parking.unpark()

    def left(self, user: int, *, hidden: bool) -> None:
        """The user's last connection is gone; of those who hide, nobody is told when."""
        self._seen[user] = self._node.now_ms()
        if len(self._seen) > UNSTORED_USERS_MAX:
            del self._seen[next(iter(self._seen))]
        if not hidden:
            self.changed(user)
        self._parking.unpark()

    # Watching

    def watch(self, connection: Connection, users: Iterable[int]) -> None:
        """Tell the connection of changes of these users, from now on."""
        watching = connection.watching or set()
        wanted = watching.union(users)
        if len(wanted) > PRESENCE_MAX_USERS:
            raise Refusal(
                Code.TOO_LARGE,
                f"a connection may watch {PRESENCE_MAX_USERS} users",
                field="users",
            )
        for user in wanted - watching:
            self._watchers.setdefault(user, {})[connection] = None
        connection.watching = wanted

    def unwatch(self, connection: Connection, users: Iterable[int]) -> None:
        for user in set(users) & (connection.watching or set()):
            watchers = self._watchers[user]
            watchers.pop(connection, None)
            if not watchers:
                del self._watchers[user]
            connection.watching.discard(user)  # type: ignore[union-attr]

    def unwatch_all(self, connection: Connection) -> None:
        """The connection is gone."""
        if connection.watching:
            self.unwatch(connection, list(connection.watching))

    # Looking

    async def look(
        self, users: Iterable[int], *, as_stored: bool = False
    ) -> list[dict[str, object]]:
        """The present state of those users who exist.

        `as_stored`: by the word of the presence store, where there is one and it can be asked.
        """
        accounts = await self._node.store.users(users)
        online: set[int] | None = None
        if as_stored and self._node.cluster is not None:
            try:
                online = await self._node.cluster.here.online(list(accounts))
            except Unavailable as error:
                log_outage(error)
        return [self.state_of(account, online) for account in accounts.values()]

    def state_of(self, account: User, online: set[int] | None = None) -> dict[str, object]:
        """One user's presence as everybody may see it; `online` by a better source than ours."""
        state: dict[str, object] = {"user": account.id, "online": False}
        if not account.hides:
            if online is None:
                state["online"] = self._node.registry.online(account.id)
            else:
                state["online"] = account.id in online
            last_seen = self._seen.get(account.id, account.last_seen)
            if last_seen:
                state["last_seen"] = last_seen
            if account.status:
                state["status"] = account.status
        return state

    # Telling

    async def run(self) -> None:
        while True:
            await self._parking.park()
            # Jitter, so that many nodes or restarts do not tell in step.
            wait_ms = self._node.options.presence_coalesce_ms * random.uniform(0.9, 1.1)
            await trio.sleep(wait_ms / 1000)
            await self.settle()

    async def settle(self) -> None:
        """Store and tell what has gathered."""
        try:
            await self.store_seen()
            await self._tell()
        except Unavailable as error:
            log_outage(error)
            await trio.sleep(1.0)
            self._parking.unpark()

    async def store_seen(self) -> None:
        """Store when those who left were last seen. Raises `Unavailable`."""
        seen = {u: t for u, t in self._seen.items() if u not in self._node.registry.sessions}
        if seen:
            await self._node.store.seen(seen)
        for user, time in list(self._seen.items()):
            if seen.get(user, time) == time:
                del self._seen[user]

    async def _tell(self) -> None:
        while self._changed:
            some = {user: self._changed.pop(user) for user in list(self._changed)[:LOOKUP_USERS]}
            try:
                accounts = await self._node.store.users(some)
            except Unavailable:
                self._changed = {**some, **self._changed}
                raise
            events: dict[Connection, list[dict[str, object]]] = {}
            for user, seen_ms in some.items():
                account = accounts.get(user)
                if account is None:
                    continue
                account.last_seen = max(account.last_seen, seen_ms)
                state = self.state_of(account)
                for connection in self._watchers.get(user, ()):
                    events.setdefault(connection, []).append(state)
            for connection, states in events.items():
                event = {"t": "presence", "users": states}
                wire = connection.wire
                connection.push_ephemeral(wire.wrap(wire.codec.encode(event)))
            self._node.flusher.kick()
