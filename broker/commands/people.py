"""Who people are: public profiles as others may see them, and one's own.

What a user keeps to themselves (email, phone, being online) is left out here and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from broker.commands.account import check_email, check_phone
from broker.commands.conversations import session_of
from broker.commands.pages import Room
from broker.names import check_label
from broker.wire.commands import ProfileGet, ProfileSet, UserFind, UserGet
from broker.wire.errors import Code, Refusal
from storage.interfaces import name_key

if TYPE_CHECKING:
    from actors.connection import Connection
    from actors.node import Node
    from storage.records import User

_PROFILE_FIELDS = tuple(field for field in ProfileSet.__struct_fields__ if field not in ("id", "t"))
_SEEN_BY_WATCHERS = frozenset({"status", "show_online"})


def user_get(connection: Connection, command: UserGet) -> None:
    """A user's public profile, by id or by name."""
    if (command.user is None) == (command.name is None):
        raise Refusal(Code.BAD_REQUEST, "either `user` or `name`", field="user")
    session_of(connection).submit(connection, command, _user_get)


async def _user_get(connection: Connection, command: UserGet) -> None:
    store = connection.node.store
    if command.user is not None:
        account = (await store.users([command.user])).get(command.user)
    else:
        assert command.name is not None
        account = (await store.users_by_name([command.name])).get(name_key(command.name))
    if account is None or account.disabled:
        field = "user" if command.user is not None else "name"
        raise Refusal(Code.NOT_FOUND, "there is no such user", field=field)
    connection.ok(command.id, **public_profile(connection.node, account))


def user_find(connection: Connection, command: UserFind) -> None:
    """Public profiles of users whose name begins with the query."""
    session_of(connection).submit(connection, command, _user_find)


async def _user_find(connection: Connection, command: UserFind) -> None:
    node = connection.node
    accounts = await node.store.find_users(command.query, limit=command.limit)
    users = Room(connection).fill(public_profile(node, account) for account in accounts)
    connection.ok(command.id, users=users)


def public_profile(node: Node, account: User) -> dict[str, object]:
    """What everybody may know of a user."""
    profile: dict[str, object] = {
        "user": account.id,
        "name": account.name,
        "nickname": account.nickname,
        "avatar": account.avatar,
        "bio": account.bio,
    }
    if account.show_email == "everyone":
        profile["email"] = account.email
    if account.show_phone == "everyone":
        profile["phone"] = account.phone
    return profile | node.presence.state_of(account)


def profile_get(connection: Connection, command: ProfileGet) -> None:
    """One's own profile, with what others may not see."""
    session_of(connection).submit(connection, command, _profile_get)


async def _profile_get(connection: Connection, command: ProfileGet) -> None:
    accounts = await connection.node.store.users([connection.user])
    connection.ok(command.id, **_own_profile(accounts[connection.user]))


def profile_set(connection: Connection, command: ProfileSet) -> None:
    """Change one's own profile; the answer is the whole of it."""
    check_email(command.email or "")
    check_phone(command.phone or "")
    for field in ("nickname", "status"):
        check_label(getattr(command, field) or "", field)
    session_of(connection).submit(connection, command, _profile_set)


async def _profile_set(connection: Connection, command: ProfileSet) -> None:
    node = connection.node
    changes = {
        field: value for field in _PROFILE_FIELDS if (value := getattr(command, field)) is not None
    }
    account = await node.store.update_user(connection.user, changes)
    connection.ok(command.id, **_own_profile(account))
    node.registry.hide(connection.user, account.hides)
    if _SEEN_BY_WATCHERS & changes.keys():
        node.presence.changed(connection.user)
        if node.cluster is not None:
            node.cluster.here.hide(connection.user, account.hides)


def _own_profile(account: User) -> dict[str, object]:
    profile: dict[str, object] = msgspec.structs.asdict(account)
    del profile["disabled"], profile["generation"]
    profile["user"] = profile.pop("id")
    return profile
