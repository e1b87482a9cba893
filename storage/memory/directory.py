"""Accounts and sessions in dicts. No limits, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any

import msgspec
import trio

from storage.accounts import check_changeable
from storage.errors import NameTaken, NoSuchUser
from storage.interfaces import name_key
from storage.records import Session, User


class MemoryDirectory:
    """`storage.interfaces.Directory`."""

    def __init__(self) -> None:
        self.accounts: dict[int, User] = {}
        self._by_key: dict[str, int] = {}
        self._hashes: dict[int, str | None] = {}
        self._sessions: dict[str, Session] = {}
        self._ended: set[str] = set()
        self._tokens: dict[bytes, str] = {}
        self._used: dict[bytes, tuple[str, int]] = {}
        """Refresh tokens that were used up: their session, and when they would have expired."""

    async def create_users(
        self, users: Sequence[User], password_hashes: Sequence[str | None]
    ) -> list[User]:
        await trio.lowlevel.checkpoint()
        keys = [name_key(user.name) for user in users]
        taken: set[str] = set()
        for user, key in zip(users, keys, strict=True):
            if key in self._by_key or key in taken:
                raise NameTaken(user.name)
            taken.add(key)
        created = []
        for user, key, password_hash in zip(users, keys, password_hashes, strict=True):
            account = msgspec.structs.replace(user, id=len(self.accounts) + 1)
            self.accounts[account.id] = account
            self._by_key[key] = account.id
            self._hashes[account.id] = password_hash
            created.append(copy(account))
        return created

    async def users(self, ids: Iterable[int]) -> dict[int, User]:
        await trio.lowlevel.checkpoint()
        return {id_: copy(self.accounts[id_]) for id_ in ids if id_ in self.accounts}

    async def users_by_name(self, names: Iterable[str]) -> dict[str, User]:
        await trio.lowlevel.checkpoint()
        keys = {name_key(name) for name in names}
        return {key: copy(self.accounts[self._by_key[key]]) for key in keys & self._by_key.keys()}

    async def find_users(self, prefix: str, *, limit: int) -> list[User]:
        await trio.lowlevel.checkpoint()
        start = name_key(prefix)
        found = [
            copy(self.accounts[id_])
            for key, id_ in sorted(self._by_key.items())
            if key.startswith(start) and not self.accounts[id_].disabled
        ]
        return found[: max(0, limit)]

    async def list_users(self, *, after: int, limit: int) -> list[User]:
        await trio.lowlevel.checkpoint()
        ids = [id_ for id_ in sorted(self.accounts) if id_ > after]
        return [copy(self.accounts[id_]) for id_ in ids[: max(0, limit)]]

    async def update_user(self, user: int, changes: dict[str, Any]) -> User:
        await trio.lowlevel.checkpoint()
        check_changeable(changes)
        self.accounts[user] = msgspec.structs.replace(self._account(user), **changes)
        return copy(self.accounts[user])

    async def password_hash(self, user: int) -> str | None:
        await trio.lowlevel.checkpoint()
        self._account(user)
        return self._hashes[user]

    async def set_password(self, user: int, password_hash: str) -> None:
        await trio.lowlevel.checkpoint()
        self._account(user).generation += 1
        self._hashes[user] = password_hash
        self._ended.update(id_ for id_, session in self._sessions.items() if session.user == user)

    async def seen(self, users: dict[int, int]) -> None:
        await trio.lowlevel.checkpoint()
        for id_, ts in users.items():
            if id_ in self.accounts:
                account = self.accounts[id_]
                account.last_seen = max(account.last_seen, ts)

    async def create_session(self, session: Session) -> None:
        await trio.lowlevel.checkpoint()
        if session.id in self._sessions or session.token_hash in self._tokens:
            raise ValueError("a session of that id or token exists")
        self._sessions[session.id] = copy(session)
        self._tokens[session.token_hash] = session.id

    async def rotate(
        self, token_hash: bytes, new_hash: bytes, *, now: int, expires: int
    ) -> Session | None:
        await trio.lowlevel.checkpoint()
        if token_hash in self._used:
            self._ended.add(self._used[token_hash][0])
            return None
        session = self._sessions.get(self._tokens.get(token_hash, ""))
        if session is None or session.expires <= now or session.id in self._ended:
            return None
        self._used[token_hash] = (session.id, session.expires)
        del self._tokens[token_hash]
        self._tokens[new_hash] = session.id
        session.token_hash = new_hash
        session.expires = expires
        return copy(session)

    async def end_session(self, session: str, *, now: int) -> None:
        await trio.lowlevel.checkpoint()
        if session in self._sessions:
            self._ended.add(session)

    async def ended_sessions(self, sessions: Iterable[str]) -> set[str]:
        await trio.lowlevel.checkpoint()
        return self._ended.intersection(sessions)

    async def purge(self, *, now: int) -> None:
        await trio.lowlevel.checkpoint()
        gone = {id_ for id_, session in self._sessions.items() if session.expires < now}
        for id_ in gone:
            del self._tokens[self._sessions.pop(id_).token_hash]
        self._ended -= gone
        self._used = {
            token: (id_, expires)
            for token, (id_, expires) in self._used.items()
            if id_ not in gone and expires >= now
        }

    def _account(self, user: int) -> User:
        if user not in self.accounts:
            raise NoSuchUser(f"no user {user}")
        return self.accounts[user]
