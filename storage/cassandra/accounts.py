"""Accounts: unique names by conditional writes, found by id, name and the beginning of a name.

A name's row holds an id; the account exists once its own row does. What crashed in between is a
name without an account: whoever wants the name later makes that id void, so that the account can
never come to be, and takes the name over. All columns of an account are written conditionally, so
that no clock of a client decides between two of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import trio
from cassandra.query import UNSET_VALUE

from storage.accounts import check_changeable
from storage.cassandra.blocks import Blocks
from storage.cassandra.bridge import Bridge
from storage.cassandra.connection import CONDITIONAL, READ, WRITE
from storage.cassandra.keys import by_keys
from storage.cassandra.sessions import Sessions
from storage.cassandra.statements import CHANGEABLE, USER_FIELDS, Statements
from storage.errors import NameTaken, NoSuchUser, Unavailable
from storage.interfaces import name_key
from storage.records import User

CREATED_AT_ONCE = 32
"""Accounts that are created at once; the others wait, as conditional writes are heavy."""
HALF_MADE_LOOKS = 10
"""Looks at a name without an account, before whoever took it counts as crashed."""
HALF_MADE_PERIOD_S = 0.2
"""Between two of them."""
PREFIX_CHARS = 2
"""Of a name's beginning make a partition of the list of names. Never changed."""
NAMES_PAGE_ROWS = 200
"""Names that a search looks at in one round."""
NAMES_LOOKED_MAX = 20_000
"""Names that one search looks at; then it returns what it has found."""
PREFIXES_MAX = 10_000
"""Partitions that one search looks at, likewise."""
ID_BUCKET = 10_000
"""Ids in a partition of the list of accounts. Never changed."""
TRIES_MAX = 20
"""Tries of a conditional write that others get before; then it is `Unavailable`."""


class Accounts:
    """`storage.interfaces.Directory` without the sessions."""

    def __init__(
        self, bridge: Bridge, statements: Statements, sessions: Sessions, blocks: Blocks
    ) -> None:
        self._bridge = bridge
        self._bind = statements.bind
        self._sessions = sessions
        self._blocks = blocks

    async def create_users(
        self, users: Sequence[User], password_hashes: Sequence[str | None]
    ) -> list[User]:
        """See `Directory.create_users`. A crash may leave the first few of many."""
        keys = [name_key(user.name) for user in users]
        if any("\0" in key or not key for key in keys):
            raise ValueError("a name has no NUL and is not empty")
        for number, key in enumerate(keys):
            if key in keys[:number]:
                raise NameTaken(users[number].name)
        ids = await self._blocks.take(len(users))
        made = [
            User(**{**{name: getattr(user, name) for name in User.__struct_fields__}, "id": id_})
            for user, id_ in zip(users, ids, strict=True)
        ]
        claimed: list[tuple[str, int]] = []
        done = False
        try:
            await self._claim_all(made, keys, claimed)
            await self._list(made, keys)
            await self._add(made, password_hashes)
            done = True
        finally:
            if not done and claimed:
                await self._release(claimed)
        await self.seen({user.id: user.last_seen for user in made if user.last_seen})
        return made

    async def _claim_all(
        self, made: Sequence[User], keys: Sequence[str], claimed: list[tuple[str, int]]
    ) -> None:
        left = list(zip(made, keys, strict=True))
        for start in range(0, len(left), CREATED_AT_ONCE):
            some = left[start : start + CREATED_AT_ONCE]
            claimed += [(key, user.id) for user, key in some]
            asked = [self._bind("claim_name", key, user.id) for user, key in some]
            answers = await self._bridge.all(asked, CONDITIONAL)
            refused = [
                (user, key, rows[0]["id"])
                for (user, key), rows in zip(some, answers, strict=True)
                if not rows[0]["[applied]"]
            ]
            for user, key, _ in refused:
                claimed.remove((key, user.id))
            for user, key, holder in refused:
                await self._take_over(user, key, holder)
                claimed.append((key, user.id))

    async def _take_over(self, user: User, key: str, holder: int) -> None:
        """Get a name from one who crashed before there was an account. Raises `NameTaken`."""
        for look in range(HALF_MADE_LOOKS):
            if holder == user.id:
                return
            if await self.users([holder]):
                raise NameTaken(user.name)
            if look < HALF_MADE_LOOKS - 1:
                await trio.sleep(HALF_MADE_PERIOD_S)
        (answer,) = await self._bridge.one(self._bind("void_user", holder), CONDITIONAL)
        if not answer["[applied]"]:
            raise NameTaken(user.name)
        retaken = self._bind("retake_name", user.id, key, holder)
        (answer,) = await self._bridge.one(retaken, CONDITIONAL)
        if answer["[applied]"]:
            return
        # Released meanwhile, or taken over by another.
        (answer,) = await self._bridge.one(self._bind("claim_name", key, user.id), CONDITIONAL)
        if not answer["[applied]"]:
            raise NameTaken(user.name)

    async def _list(self, made: Sequence[User], keys: Sequence[str]) -> None:
        prefixes = {key[:PREFIX_CHARS] for key in keys}
        writes = [self._bind("add_prefix", prefix) for prefix in prefixes]
        for user, key in zip(made, keys, strict=True):
            writes.append(self._bind("add_name", key[:PREFIX_CHARS], key, user.id))
            writes.append(self._bind("add_id", user.id // ID_BUCKET, user.id))
        await self._bridge.all(writes, WRITE)

    async def _add(self, made: Sequence[User], hashes: Sequence[str | None]) -> None:
        left = list(zip(made, hashes, strict=True))
        for start in range(0, len(left), CREATED_AT_ONCE):
            some = left[start : start + CREATED_AT_ONCE]
            asked = [
                self._bind(
                    "add_user",
                    *(getattr(user, name) for name in USER_FIELDS),
                    UNSET_VALUE if password_hash is None else password_hash,
                    user.id,
                )
                for user, password_hash in some
            ]
            answers = await self._bridge.all(asked, CONDITIONAL)
            for (user, _), rows in zip(some, answers, strict=True):
                if not rows[0]["[applied]"]:
                    raise NameTaken(user.name)

    async def _release(self, claimed: Sequence[tuple[str, int]]) -> None:
        # Void first: a write of the account that is in doubt must not come to be without a name.
        with trio.move_on_after(HALF_MADE_PERIOD_S * HALF_MADE_LOOKS, shield=True):
            for key, id_ in claimed:
                try:
                    (answer,) = await self._bridge.one(self._bind("void_user", id_), CONDITIONAL)
                    if answer["[applied]"]:
                        await self._bridge.one(self._bind("release_name", key, id_), CONDITIONAL)
                except Unavailable:
                    return  # The next who wants the name takes it over.

    async def users(self, ids: Iterable[int]) -> dict[int, User]:
        """See `Directory.users`."""
        wanted = list(dict.fromkeys(ids))
        rows = await by_keys(self._bridge, self._bind, "users", wanted)
        found = {row[0]: row for row in rows if row[1] is not None}
        seen = dict(await by_keys(self._bridge, self._bind, "last_seen", list(found)))
        await trio.lowlevel.checkpoint()
        return {id_: _user(found[id_], seen.get(id_, 0)) for id_ in wanted if id_ in found}

    async def users_by_name(self, names: Iterable[str]) -> dict[str, User]:
        """See `Directory.users_by_name`."""
        keys = {key for name in names if (key := name_key(name))}
        ids = dict(await by_keys(self._bridge, self._bind, "by_name", keys))
        users = await self.users(ids.values())
        return {key: users[id_] for key, id_ in ids.items() if id_ in users}

    async def find_users(self, prefix: str, *, limit: int) -> list[User]:
        """See `Directory.find_users`. Looks at `NAMES_LOOKED_MAX` names at most."""
        start = name_key(prefix)
        found: list[User] = []
        looked = 0
        for bucket in await self._prefixes(start):
            after = None
            while len(found) < limit and looked < NAMES_LOOKED_MAX:
                if after is None:
                    asked = self._bind("names", bucket, start, NAMES_PAGE_ROWS)
                else:
                    asked = self._bind("names_after", bucket, *after, NAMES_PAGE_ROWS)
                rows = await self._bridge.one(asked, READ)
                found += await self._named([row for row in rows if row[0].startswith(start)])
                looked += len(rows)
                if len(rows) < NAMES_PAGE_ROWS or not rows[-1][0].startswith(start):
                    break
                after = rows[-1]
            if len(found) >= limit:
                break
        return found[: max(0, limit)]

    async def _prefixes(self, start: str) -> list[str]:
        """The partitions in which names with this beginning are, in order."""
        if len(start) >= PREFIX_CHARS:
            return [start[:PREFIX_CHARS]]
        rows = await self._bridge.one(self._bind("prefixes", start, PREFIXES_MAX), READ)
        return [prefix for (prefix,) in rows if prefix.startswith(start)]

    async def _named(self, rows: Collection[tuple[str, int]]) -> list[User]:
        users = await self.users(id_ for _, id_ in rows)
        # The list may hold what crashed before it was an account.
        named = [(key, users[id_]) for key, id_ in rows if id_ in users]
        return [user for key, user in named if not user.disabled and name_key(user.name) == key]

    async def list_users(self, *, after: int, limit: int) -> list[User]:
        """See `Directory.list_users`."""
        found: list[User] = []
        top = await self._blocks.top()
        after = max(0, after)
        while len(found) < limit and after < top:
            bucket = (after + 1) // ID_BUCKET
            asked = self._bind("ids", bucket, after, limit)
            ids = [id_ for (id_,) in await self._bridge.one(asked, READ)]
            users = await self.users(ids)
            found += users.values()
            after = ids[-1] if len(ids) == limit else (bucket + 1) * ID_BUCKET - 1
        return found[: max(0, limit)]

    async def update_user(self, user: int, changes: dict[str, Any]) -> User:
        """See `Directory.update_user`."""
        check_changeable(changes)
        stored = (await self.users([user])).get(user)
        if stored is None:
            raise NoSuchUser(f"no user {user}")
        values = [changes.get(name, UNSET_VALUE) for name in CHANGEABLE]
        if any(value is not UNSET_VALUE for value in values):
            statement = self._bind("change_user", *values, user, stored.name)
            await self._bridge.one(statement, CONDITIONAL)
        if "last_seen" in changes:
            await self.seen({user: changes["last_seen"]})
        return (await self.users([user]))[user]

    async def password_hash(self, user: int) -> str | None:
        """See `Directory.password_hash`."""
        rows = await self._bridge.one(self._bind("password", user), READ)
        if not rows or rows[0][0] is None:
            raise NoSuchUser(f"no user {user}")
        found: str | None = rows[0][2]
        return found

    async def set_password(self, user: int, password_hash: str) -> None:
        """See `Directory.set_password`. Who was refused between the two steps may ask again."""
        for _ in range(TRIES_MAX):
            rows = await self._bridge.one(self._bind("password", user), READ)
            if not rows or rows[0][0] is None:
                raise NoSuchUser(f"no user {user}")
            generation = rows[0][1]
            values = (password_hash, generation + 1, user, generation)
            (answer,) = await self._bridge.one(self._bind("set_password", *values), CONDITIONAL)
            if answer["[applied]"]:
                await self._sessions.end_all(user)
                return
        raise Unavailable("too many change one password", applied=False)

    async def seen(self, users: dict[int, int]) -> None:
        """See `Directory.seen`. The time itself is the timestamp, so the latest one wins."""
        await self._bridge.all(
            [self._bind("put_last_seen", ts, ts, user) for user, ts in users.items()], WRITE
        )


def _user(row: Sequence[Any], last_seen: int) -> User:
    return User(**dict(zip(("id", *USER_FIELDS), row, strict=True)), last_seen=last_seen)
