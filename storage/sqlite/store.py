"""`SqliteStore`: the store's methods, each as one call to the writer or to the readers.

Decides which thread does what, and nothing else.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import trio

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
from storage.sqlite import accounts, conversations, history, sessions
from storage.sqlite.append import Appender
from storage.sqlite.lookup import Lookup
from storage.sqlite.readers import Readers
from storage.sqlite.writer import Writer


class SqliteStore:
    """`storage.interfaces.Store` in one SQLite database. Made by `open_sqlite`."""

    def __init__(self, writer: Writer, readers: Readers, appender: Appender) -> None:
        self._write = writer.run
        self._read = readers.run
        self._appender = appender
        self._users = Lookup(readers, accounts.by_id)
        self._ended = Lookup(readers, sessions.ended)
        self._loaded = Lookup(readers, conversations.load)

    async def ping(self) -> None:
        # Writes a page to the log and syncs it, so it fails when a commit would; the value must
        # change, or SQLite writes nothing.
        await self._write(lambda db: db.execute("UPDATE counter SET probe = 1 - probe"))

    # Timeline

    async def commit(self, commit: Commit) -> None:
        await self._write(partial(self._appender.commit, commit=commit))

    async def load(
        self, convs: Sequence[str], tail: int, epochs: Mapping[str, int] | None = None
    ) -> dict[str, Loaded]:
        # Epochs need no keeping: the lock of `open_sqlite` lets one process at a time write logs.
        found = await self._loaded.get((conv, tail) for conv in convs)
        return {conv: loaded for (conv, _), loaded in found.items()}

    async def put_away(self, epochs: Mapping[str, int]) -> None:
        await trio.lowlevel.checkpoint()

    async def left_open(self, slots: Collection[int]) -> list[str]:
        await trio.lowlevel.checkpoint()
        return []

    async def read(
        self, conv: str, *, after: int | None = None, before: int | None = None, limit: int
    ) -> list[bytes]:
        return await self._read(lambda db: history.read(db, conv, after, before, limit))

    async def heads(self, convs: Sequence[str]) -> dict[str, Head]:
        found = await self._read(lambda db: history.heads(db, convs))
        return {conv: found.get(conv) or Head() for conv in convs}

    async def next_group_id(self) -> int:
        return await self._write(_next_group_id)

    async def memberships(
        self, user: int, *, past: Mapping[str, int] | None = None
    ) -> list[Membership]:
        return await self._read(lambda db: conversations.memberships(db, user))

    async def find_groups(self, query: str, *, after: int, limit: int) -> list[tuple[Group, int]]:
        return await self._read(lambda db: conversations.find_groups(db, query, after, limit))

    async def groups(self, ids: Iterable[int]) -> dict[int, tuple[Group, int]]:
        wanted = list(ids)
        return await self._read(lambda db: conversations.groups(db, wanted))

    async def members(self, conv: str, *, after: int, limit: int) -> list[Member]:
        return await self._read(lambda db: conversations.members(db, conv, after, limit))

    async def settings(self, user: int, conv: str) -> Settings | None:
        return await self._read(lambda db: conversations.settings(db, user, conv))

    async def put_settings(self, settings: Settings, epoch: int = 0) -> None:
        await self._write(partial(self._appender.put_settings, settings=settings))

    # Directory

    async def create_users(
        self, users: Sequence[User], password_hashes: Sequence[str | None]
    ) -> list[User]:
        return await self._write(lambda db: accounts.create(db, users, password_hashes))

    async def users(self, ids: Iterable[int]) -> dict[int, User]:
        return await self._users.get(ids)

    async def users_by_name(self, names: Iterable[str]) -> dict[str, User]:
        wanted = list(names)
        return await self._read(lambda db: accounts.by_name(db, wanted))

    async def find_users(self, prefix: str, *, limit: int) -> list[User]:
        return await self._read(lambda db: accounts.by_prefix(db, prefix, limit))

    async def list_users(self, *, after: int, limit: int) -> list[User]:
        return await self._read(lambda db: accounts.after(db, after, limit))

    async def update_user(self, user: int, changes: dict[str, Any]) -> User:
        return await self._write(lambda db: accounts.update(db, user, changes))

    async def password_hash(self, user: int) -> str | None:
        return await self._read(lambda db: accounts.password_hash(db, user))

    async def set_password(self, user: int, password_hash: str) -> None:
        await self._write(lambda db: accounts.set_password(db, user, password_hash))

    async def seen(self, users: dict[int, int]) -> None:
        await self._write(lambda db: accounts.seen(db, users))

    async def create_session(self, session: Session) -> None:
        await self._write(lambda db: sessions.create(db, session))

    async def rotate(
        self, token_hash: bytes, new_hash: bytes, *, now: int, expires: int
    ) -> Session | None:
        return await self._write(lambda db: sessions.rotate(db, token_hash, new_hash, now, expires))

    async def end_session(self, session: str, *, now: int) -> None:
        await self._write(lambda db: sessions.end(db, session))

    async def ended_sessions(self, sessions: Iterable[str]) -> set[str]:
        return set(await self._ended.get(sessions))

    async def purge(self, *, now: int) -> None:
        await self._write(lambda db: sessions.purge(db, now))


def _next_group_id(connection: sqlite3.Connection) -> int:
    connection.execute(
        "UPDATE counter SET last_group_id ="
        " 1 + max(last_group_id, (SELECT coalesce(max(id), 0) FROM talk_group))"
    )
    (id_,) = connection.execute("SELECT last_group_id FROM counter").fetchone()
    return int(id_)
