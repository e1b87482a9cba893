"""Accounts in SQL: functions of a connection, each one part of a transaction. Keeps no state.

Another process may change accounts at any time, so nothing of them is ever remembered.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from storage.accounts import check_changeable
from storage.errors import NameTaken, NoSuchUser
from storage.interfaces import name_key
from storage.records import User
from storage.sqlite.rows import Insert, int_list, text_list

_FIRST_SURROGATE, _AFTER_SURROGATES = 0xD800, 0xE000

_NAMES = User.__struct_fields__
_FIELDS = ", ".join(_NAMES)
_DISABLED = _NAMES.index("disabled")
_INSERT = Insert(f"user ({_FIELDS}, key, password_hash)", len(_NAMES) + 2)
_BY_ID = f"SELECT {_FIELDS} FROM user WHERE id IN (SELECT value FROM json_each(?))"
_BY_KEY = f"SELECT key, {_FIELDS} FROM user WHERE key IN (SELECT value FROM json_each(?))"
_BY_PREFIX = f"""
    SELECT {_FIELDS} FROM user
    WHERE key >= ? AND key < ? AND NOT disabled ORDER BY key LIMIT ?
"""
_AFTER = f"SELECT {_FIELDS} FROM user WHERE id > ? ORDER BY id LIMIT ?"
_SEEN = """
    UPDATE user SET last_seen = max(last_seen, j.value)
    FROM json_each(?) AS j WHERE user.id = CAST(j.key AS INTEGER)
"""


def create(
    connection: sqlite3.Connection, new: Sequence[User], password_hashes: Sequence[str | None]
) -> list[User]:
    """`Directory.create_users`."""
    keys = _free_keys(connection, new)
    (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM user").fetchone()
    rows = []
    for number, (user, key, password_hash) in enumerate(
        zip(new, keys, password_hashes, strict=True), last + 1
    ):
        values = [getattr(user, name) for name in _NAMES]
        rows.append([number, *values[1:], key, password_hash])
    _INSERT.run(connection, rows)
    return [_user(row[: len(_NAMES)]) for row in rows]


def _free_keys(connection: sqlite3.Connection, new: Sequence[User]) -> list[str]:
    keys = [name_key(user.name) for user in new]
    taken = {key for key, *_ in connection.execute(_BY_KEY, (text_list(keys),))}
    for user, key in zip(new, keys, strict=True):
        if "\0" in key:
            raise ValueError("a name has no NUL")
        if key in taken:
            raise NameTaken(user.name)
        taken.add(key)
    return keys


def by_id(connection: sqlite3.Connection, ids: Iterable[int]) -> dict[int, User]:
    """`Directory.users`."""
    return {row[0]: _user(row) for row in connection.execute(_BY_ID, (int_list(ids),))}


def by_name(connection: sqlite3.Connection, names: Iterable[str]) -> dict[str, User]:
    """`Directory.users_by_name`."""
    keys = text_list({name_key(name) for name in names})
    return {row[0]: _user(row[1:]) for row in connection.execute(_BY_KEY, (keys,))}


def by_prefix(connection: sqlite3.Connection, prefix: str, limit: int) -> list[User]:
    """`Directory.find_users`."""
    start = name_key(prefix)
    rows = connection.execute(_BY_PREFIX, (start, _behind(start), max(0, limit)))
    return [_user(row) for row in rows]


def after(connection: sqlite3.Connection, last: int, limit: int) -> list[User]:
    """`Directory.list_users`."""
    return [_user(row) for row in connection.execute(_AFTER, (last, max(0, limit)))]


def update(connection: sqlite3.Connection, user: int, changes: dict[str, Any]) -> User:
    """`Directory.update_user`."""
    check_changeable(changes)
    if changes:
        assignments = ", ".join(f"{field} = ?" for field in changes)
        connection.execute(f"UPDATE user SET {assignments} WHERE id = ?", [*changes.values(), user])
    found = by_id(connection, [user])
    if not found:
        raise NoSuchUser(f"no user {user}")
    return found[user]


def password_hash(connection: sqlite3.Connection, user: int) -> str | None:
    """`Directory.password_hash`."""
    row = connection.execute("SELECT password_hash FROM user WHERE id = ?", (user,)).fetchone()
    if row is None:
        raise NoSuchUser(f"no user {user}")
    found: str | None = row[0]
    return found


def set_password(connection: sqlite3.Connection, user: int, new_hash: str) -> None:
    """`Directory.set_password`."""
    changed = connection.execute(
        "UPDATE user SET password_hash = ?, generation = generation + 1 WHERE id = ?",
        (new_hash, user),
    )
    if changed.rowcount == 0:
        raise NoSuchUser(f"no user {user}")
    connection.execute("UPDATE session SET ended = 1 WHERE user = ?", (user,))


def seen(connection: sqlite3.Connection, times: dict[int, int]) -> None:
    """`Directory.seen`."""
    parameter = orjson.dumps({str(user): ts for user, ts in times.items()}).decode()
    connection.execute(_SEEN, (parameter,))


def _behind(prefix: str) -> str | bytes:
    """The least key behind all that begin with `prefix`; a blob, which is behind all text, if none.

    Code points sort as their UTF-8 does.
    """
    stem = prefix.rstrip("\U0010ffff")
    if not stem:
        return b""
    following = ord(stem[-1]) + 1
    return stem[:-1] + chr(_AFTER_SURROGATES if following == _FIRST_SURROGATE else following)


def _user(row: Sequence[Any]) -> User:
    user = User(**dict(zip(_NAMES, row, strict=True)))
    user.disabled = bool(row[_DISABLED])
    return user
