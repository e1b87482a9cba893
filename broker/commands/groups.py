"""Groups as such: making, looking, finding, changing, dissolving. Who is in them: `membership`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actors.conversation import Conversation
from broker.commands.conversations import group_of, member_of, named_group, session_of
from broker.commands.group_changes import (
    ONLINE_EXACT_MEMBERS,
    admit_all,
    count_online,
    describe,
    describe_to,
    done,
    record,
    visible_group,
)
from broker.commands.pages import Room, id_mark
from broker.names import check_label
from broker.wire.commands import (
    GroupCreate,
    GroupDissolve,
    GroupFind,
    GroupGet,
    GroupMine,
    GroupSet,
)
from broker.wire.errors import Code, Refusal
from storage.names import group_conv, group_id
from storage.records import Group

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.connection import Connection
    from actors.node import Node

IDS_TRIED_MAX = 16
"""Ids passed over because somebody is asking for a group of that id already."""
OWN_IDS_TRIED_MAX = 10_000
"""Ids passed over because their conversations belong to other nodes, of which there may be many."""
_SETTABLE = ("title", "visibility", "join", "history", "avatar", "about")


# create


def group_create(connection: Connection, command: GroupCreate) -> None:
    """A new group, owned by the caller, with its first members."""
    check_label(command.title, "title")
    users = list(dict.fromkeys([connection.user, *command.members]))
    if len(users) > connection.node.limits.group_members:
        limit = connection.node.limits.group_members
        raise Refusal(Code.TOO_LARGE, f"a group has at most {limit} members", field="members")
    command.members = users
    session_of(connection).submit(connection, command, _create)


async def _create(connection: Connection, command: GroupCreate) -> None:
    node = connection.node
    await check_users(node, command.members, field="members")
    group = Group(
        id=await _free_id(node),
        title=command.title,
        kind=command.kind,
        visibility=command.visibility,
        join=command.join,
        history=command.history,
        avatar=command.avatar or "",
        about=command.about or "",
        created=node.now_ms(),
    )
    conv = Conversation(node, group_conv(group.id))
    conv.begin(group)
    node.registry.adopt(conv)
    connection.post(conv, command, _created)


async def _free_id(node: Node) -> int:
    """An id under which no actor is active: two of one conversation would both write its log."""
    tries = IDS_TRIED_MAX
    if node.cluster is not None:
        tries = OWN_IDS_TRIED_MAX
        if not node.cluster.placement.owned:
            raise Refusal(Code.UNAVAILABLE, "this node writes no conversations yet: try again")
    for _ in range(tries):
        id_ = await node.store.next_group_id()
        conv = group_conv(id_)
        if conv not in node.registry.conversations and node.registry.owns(conv):
            return id_
    raise Refusal(Code.RATE_LIMITED, "too many ask for groups that do not exist", after_ms=1_000)


def _created(conv: Conversation, connection: Connection, command: GroupCreate) -> None:
    user = connection.user
    title = group_of(conv).title
    admit_all(conv, command.members, owner=user)
    entry = record(conv, user, "created", command.members, title=title)
    done(conv, connection, command.id, seq=entry.seq, **describe_to(conv, user))


async def check_users(node: Node, users: Iterable[int], *, field: str) -> None:
    """Refuse users who do not exist or are disabled, naming them."""
    wanted = list(users)
    accounts = await node.store.users(wanted)
    missing = [u for u in wanted if u not in accounts or accounts[u].disabled]
    if missing:
        names = ", ".join(map(str, missing[:10]))
        raise Refusal(Code.NOT_FOUND, f"there is no such user: {names}", field=field)


# get, set


def group_get(connection: Connection, command: GroupGet) -> None:
    """What a group is, to a member, or of a public group to anybody."""
    connection.post(named_group(connection, command), command, _get)


def _get(conv: Conversation, connection: Connection, command: GroupGet) -> None:
    visible_group(conv, connection.user)
    done(conv, connection, command.id, **describe_to(conv, connection.user))


def group_set(connection: Connection, command: GroupSet) -> None:
    """Change what is given. A group that is like that already gets no entry."""
    if command.title is not None:
        check_label(command.title, "title")
    connection.post(named_group(connection, command), command, _set)


def _set(conv: Conversation, connection: Connection, command: GroupSet) -> None:
    user = connection.user
    if member_of(conv, user).role == "member":
        raise Refusal(Code.FORBIDDEN, "only the owner and admins may change the group")
    group = group_of(conv)
    given = {name: getattr(command, name) for name in _SETTABLE}
    changes: dict[str, Any] = {
        name: value
        for name, value in given.items()
        if value is not None and value != getattr(group, name)
    }
    fields: dict[str, object] = {}
    if changes:
        conv.stage_group(msgspec.structs.replace(group, **changes))
        event = "renamed" if "title" in changes else "changed"
        fields["seq"] = record(conv, user, event, [], **changes).seq
    done(conv, connection, command.id, **fields, **describe_to(conv, user))


# dissolve


def group_dissolve(connection: Connection, command: GroupDissolve) -> None:
    """End a group: an entry, and then everybody is out."""
    connection.post(named_group(connection, command), command, _dissolve)


def _dissolve(conv: Conversation, connection: Connection, command: GroupDissolve) -> None:
    user = connection.user
    if member_of(conv, user).role != "owner":
        raise Refusal(Code.FORBIDDEN, "only the owner may dissolve the group")
    entry = record(conv, user, "dissolved", [], told=list(conv.members))
    done(conv, connection, command.id, seq=entry.seq)
    end_group(conv)


def end_group(conv: Conversation) -> None:
    """Nobody is a member any more, from the next entry on, and nobody can become one."""
    for user in list(conv.members):
        conv.expel(user)
    conv.stage_group(msgspec.structs.replace(group_of(conv), dissolved=conv.node.now_ms()))


# find, mine


def group_find(connection: Connection, command: GroupFind) -> None:
    """Public groups by a part of their title, with online counts."""
    id_mark(command.after)
    session_of(connection).submit(connection, command, _find)


async def _find(connection: Connection, command: GroupFind) -> None:
    node = connection.node
    after = id_mark(command.after)
    found = await node.store.find_groups(command.query, after=after, limit=command.limit)
    room = Room(connection)
    groups = []
    for group, members in found:
        item = describe(group, members)
        item["online"] = await _online(node, group_conv(group.id), members)
        raw = room.take(item)
        if raw is None:
            break
        groups.append(raw)
    fields: dict[str, object] = {"groups": groups}
    if groups and (len(groups) < len(found) or len(found) == command.limit):
        fields["next"] = str(found[len(groups) - 1][0].id)
    connection.ok(command.id, **fields)


async def _online(node: Node, name: str, members: int) -> int:
    """`count_online`, for a group that need not be active."""
    conv = node.registry.conversations.get(name)
    if conv is not None and conv.loaded:
        return count_online(conv)
    sample = await node.store.members(name, after=0, limit=ONLINE_EXACT_MEMBERS)
    online = sum(1 for member in sample if node.registry.online(member.user))
    if members > len(sample) > 0:
        online = round(online * members / len(sample))
    return online


def group_mine(connection: Connection, command: GroupMine) -> None:
    """The groups that the caller is in, by id."""
    id_mark(command.after)
    session_of(connection).submit(connection, command, _mine)


async def _mine(connection: Connection, command: GroupMine) -> None:
    store = connection.node.store
    after = id_mark(command.after)
    roles = {
        id_: membership.role
        for membership in await store.memberships(connection.user)
        if (id_ := group_id(membership.conv)) is not None and id_ > after
    }
    ids = sorted(roles)
    records = await store.groups(ids[: command.limit])
    page = [id_ for id_ in ids[: command.limit] if id_ in records]
    groups = Room(connection).fill(describe(*records[id_]) | {"role": roles[id_]} for id_ in page)
    fields: dict[str, object] = {"groups": groups}
    if groups and (len(groups) < len(page) or len(ids) > command.limit):
        fields["next"] = str(page[len(groups) - 1])
    connection.ok(command.id, **fields)
