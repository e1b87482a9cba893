"""Names of conversations, and who may take part: what all commands on a conversation begin with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from broker.wire.errors import Code, Refusal
from broker.wire.limits import MAX_ID

if TYPE_CHECKING:
    from actors.connection import Connection
    from actors.conversation import Conversation
    from actors.session import Session
    from broker.wire.commands import GroupCommand
    from storage.records import Group, Member

_ID = r"([1-9][0-9]{0,15})"
_DIRECT = re.compile(f"d/{_ID}/{_ID}")
_GROUP = re.compile(f"g/{_ID}")


def conversation(connection: Connection, name: str, *, field: str = "conv") -> Conversation:
    """The actor of a named conversation. Raises `Refusal` where it cannot be the caller's."""
    active = connection.node.registry.conversations.get(name)
    if active is not None:
        return active
    check_name(connection.user, name, field)
    return connection.node.registry.conversation(name)


def named_group(connection: Connection, command: GroupCommand) -> Conversation:
    """The actor of the group that a command names by conversation or by id."""
    if (command.conv is None) == (command.group is None):
        raise Refusal(Code.BAD_REQUEST, "either `conv` or `group`", field="conv")
    name = f"g/{command.group}" if command.conv is None else command.conv
    if _GROUP.fullmatch(name) is None:
        raise Refusal(Code.BAD_REQUEST, "a group is named g/ID", field="conv")
    return conversation(connection, name)


def session_of(connection: Connection) -> Session:
    """The caller's session; a connection whose commands come here has one."""
    assert connection.session is not None
    return connection.session


def check_name(user: int, name: str, field: str) -> None:
    """That it names a conversation, and if direct, one of this user's."""
    direct = _DIRECT.fullmatch(name)
    if direct is not None:
        low, high = int(direct[1]), int(direct[2])
        if low < high <= MAX_ID:
            if user in (low, high):
                return
            raise Refusal(Code.NOT_FOUND, "no such conversation", field=field)
    else:
        group = _GROUP.fullmatch(name)
        if group is not None and int(group[1]) <= MAX_ID:
            return
    raise Refusal(
        Code.BAD_REQUEST,
        "a conversation is named d/LOWER/HIGHER (two user ids) or g/ID",
        field=field,
    )


def direct_name(user: int, other: int) -> str:
    """The conversation of two users."""
    if user == other:
        raise Refusal(Code.BAD_REQUEST, "there is no conversation with oneself", field="to.user")
    return f"d/{user}/{other}" if user < other else f"d/{other}/{user}"


def member_of(conversation: Conversation, user: int) -> Member:
    """The caller's membership. Outsiders learn no more than that a public group exists."""
    member = conversation.members.get(user)
    if member is not None:
        return member
    group = conversation.group
    if group is not None and group.visibility == "public" and not group.dissolved:
        raise Refusal(Code.FORBIDDEN, "you are not a member of this group", field="conv")
    raise Refusal(Code.NOT_FOUND, "no such conversation", field="conv")


def group_of(conversation: Conversation) -> Group:
    """The group of a group conversation that lives. Whether the caller may know is not asked."""
    group = conversation.group
    if group is None or group.dissolved:
        raise Refusal(Code.NOT_FOUND, "no such group", field="conv")
    return group


def is_direct(conversation: Conversation) -> bool:
    return conversation.group is None
