"""`CassandraStore`: the store's methods, each as one call to the part that knows.

Decides which part does what, and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from storage.cassandra.accounts import Accounts
from storage.cassandra.blocks import Blocks
from storage.cassandra.bridge import Bridge
from storage.cassandra.connection import WRITE
from storage.cassandra.conversations import Conversations
from storage.cassandra.known import Knowledge
from storage.cassandra.leases import CassandraLeases
from storage.cassandra.pages import Pages
from storage.cassandra.session import Connected
from storage.cassandra.sessions import Sessions
from storage.cassandra.taking import Taking
from storage.cassandra.versions import Versions
from storage.cassandra.writing import Writing
from storage.records import (
    Commit,
    Group,
    Head,
    Loaded,
    Member,
    Membership,
    Session,
    Settings,
    User,
)


class CassandraStore(CassandraLeases):
    """`storage.interfaces.Store` and `storage.shared.Leases` in one keyspace, which any number of
    processes share. Made by `open_cassandra`, in the event loop.
    """

    def __init__(self, connected: Connected) -> None:
        statements, replicas = connected.statements, connected.replicas
        self.bridge = bridge = Bridge(connected.session)
        known, versions = Knowledge(), Versions()
        super().__init__(bridge, statements, known)
        self._group_ids = Blocks("group", bridge, statements)
        self._taking = Taking(bridge, statements, replicas, known, versions)
        self._writing = Writing(bridge, statements, replicas, known, versions, self._taking)
        self._pages = Pages(bridge, statements, self._taking)
        self._convs = Conversations(bridge, statements, known, versions, self._taking, self._pages)
        self._sessions = Sessions(bridge, statements)
        self._accounts = Accounts(
            bridge, statements, self._sessions, Blocks("user", bridge, statements)
        )

    async def ping(self) -> None:
        # Always the same row.
        await self._bridge.one(self._bind("probe", time.time_ns() // 1_000_000), WRITE)

    # Timeline

    async def commit(self, commit: Commit) -> None:
        self._note(commit.epochs)
        await self._writing.commit(commit)
        for group in commit.groups:
            self._group_ids.passed(group.id)

    async def load(
        self, convs: Sequence[str], tail: int, epochs: Mapping[str, int] | None = None
    ) -> dict[str, Loaded]:
        self._note(epochs)
        return await self._convs.load(convs, tail, epochs or {})

    async def put_away(self, epochs: Mapping[str, int]) -> None:
        self._note(epochs)
        # A checkpoint of a higher version than a commit under way would make void what it writes.
        done = {c: epoch for c, epoch in epochs.items() if c not in self._writing.under_way}
        await self._taking.put_away(done)

    async def left_open(self, slots: Collection[int]) -> list[str]:
        return await self._convs.left_open(slots)

    async def read(
        self, conv: str, *, after: int | None = None, before: int | None = None, limit: int
    ) -> list[bytes]:
        return await self._pages.read(conv, after=after, before=before, limit=limit)

    async def heads(self, convs: Sequence[str]) -> dict[str, Head]:
        return await self._convs.heads(convs)

    async def next_group_id(self) -> int:
        return (await self._group_ids.take())[0]

    async def memberships(
        self, user: int, *, past: Mapping[str, int] | None = None
    ) -> list[Membership]:
        return await self._convs.memberships(user, past)

    async def find_groups(self, query: str, *, after: int, limit: int) -> list[tuple[Group, int]]:
        return await self._convs.find_groups(query, after=after, limit=limit)

    async def groups(self, ids: Iterable[int]) -> dict[int, tuple[Group, int]]:
        return await self._convs.groups(ids)

    async def members(self, conv: str, *, after: int, limit: int) -> list[Member]:
        return await self._convs.members(conv, after=after, limit=limit)

    async def settings(self, user: int, conv: str) -> Settings | None:
        return await self._convs.settings(user, conv)

    async def put_settings(self, settings: Settings, epoch: int = 0) -> None:
        await self._convs.put_settings(settings, epoch)

    # Directory

    async def create_users(
        self, users: Sequence[User], password_hashes: Sequence[str | None]
    ) -> list[User]:
        return await self._accounts.create_users(users, password_hashes)

    async def users(self, ids: Iterable[int]) -> dict[int, User]:
        return await self._accounts.users(ids)

    async def users_by_name(self, names: Iterable[str]) -> dict[str, User]:
        return await self._accounts.users_by_name(names)

    async def find_users(self, prefix: str, *, limit: int) -> list[User]:
        return await self._accounts.find_users(prefix, limit=limit)

    async def list_users(self, *, after: int, limit: int) -> list[User]:
        return await self._accounts.list_users(after=after, limit=limit)

    async def update_user(self, user: int, changes: dict[str, Any]) -> User:
        return await self._accounts.update_user(user, changes)

    async def password_hash(self, user: int) -> str | None:
        return await self._accounts.password_hash(user)

    async def set_password(self, user: int, password_hash: str) -> None:
        await self._accounts.set_password(user, password_hash)

    async def seen(self, users: dict[int, int]) -> None:
        await self._accounts.seen(users)

    async def create_session(self, session: Session) -> None:
        await self._sessions.create_session(session)

    async def rotate(
        self, token_hash: bytes, new_hash: bytes, *, now: int, expires: int
    ) -> Session | None:
        return await self._sessions.rotate(token_hash, new_hash, now=now, expires=expires)

    async def end_session(self, session: str, *, now: int) -> None:
        await self._sessions.end_session(session)

    async def ended_sessions(self, sessions: Iterable[str]) -> set[str]:
        return await self._sessions.ended_sessions(sessions)

    async def purge(self, *, now: int) -> None:
        await self._sessions.purge(now=now)

    def _note(self, epochs: Mapping[str, int] | None) -> None:
        if epochs:
            self._known.shared = True
