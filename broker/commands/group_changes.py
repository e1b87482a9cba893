"""How a change of a group is written down and told, and what a group looks like to a user.

Every change is a `system` entry of the group's log, so that it has its place among the messages;
the event `conv` stands before its entry, so that new members know what they are about to read.
Nothing here decides who may do what.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from broker.commands.conversations import group_of, member_of
from broker.wire.errors import Code, Refusal
from storage.records import Member

if TYPE_CHECKING:
    from actors.connection import Connection
    from actors.conversation import Conversation
    from storage.records import Entry, Group

ONLINE_EXACT_MEMBERS = 1_000
"""Up to this many members, those who are online are counted; above, it is an estimate."""


def record(
    conv: Conversation,
    by: int,
    event: str,
    users: list[int],
    *,
    told: Iterable[int] = (),
    **details: object,
) -> Entry:
    """Append the entry of a change, and tell the members of it.

    `told` are users who learn of it even on a connection that is behind, since they are about to
    lose (or have just got) the right to read what they missed.
    """
    body = {"event": event, "users": users, "by": by, **details}
    notice = {"t": "conv", "conv": conv.name, "change": event, "users": users, "by": by, **details}
    conv.after(partial(_announce, conv, notice, tuple(told)))
    return conv.append(by, "system", body)


def _announce(conv: Conversation, notice: dict[str, object], told: Iterable[int]) -> None:
    conv.tell(notice)
    conv.node.registry.tell(told, notice, behind=conv.name)


def done(conv: Conversation, connection: Connection, command_id: int, /, **fields: object) -> None:
    """The `ok` of a change: which group, and what the change brought with it."""
    reply = {"t": "ok", "id": command_id, "conv": conv.name, "group": group_of(conv).id, **fields}
    conv.answer(connection, command_id, reply)


def admit_all(conv: Conversation, users: Iterable[int], owner: int = 0) -> None:
    """Make users members from the next entry on; the one that tells of it is to be appended."""
    since = conv.next_seq
    for user in users:
        conv.admit(Member(conv.name, user, "owner" if user == owner else "member", since))


def visible_group(conv: Conversation, user: int) -> Group:
    """A living group that the user may know of: public, or their own."""
    group = conv.group
    if group is None or group.dissolved or group.visibility != "public":
        member_of(conv, user)
    return group_of(conv)


def check_room(conv: Conversation, more: int, field: str | None = None) -> None:
    """Refuse what would make the group larger than the limit."""
    limit = conv.node.limits.group_members
    if len(conv.members) + more > limit:
        raise Refusal(Code.TOO_LARGE, f"a group has at most {limit} members", field=field)


def describe(group: Group, members: int) -> dict[str, object]:
    """A group as anybody sees it who may know of it."""
    return {
        "conv": f"g/{group.id}",
        "group": group.id,
        "title": group.title,
        "kind": group.kind,
        "visibility": group.visibility,
        "join": group.join,
        "history": group.history,
        "avatar": group.avatar,
        "about": group.about,
        "created": group.created,
        "members": members,
    }


def describe_to(conv: Conversation, user: int) -> dict[str, object]:
    """`describe`, with how many are online, and for members their role and the newest entry."""
    fields = describe(group_of(conv), len(conv.members))
    fields["online"] = count_online(conv)
    member = conv.members.get(user)
    if member is not None:
        fields["role"] = member.role
        fields["head"] = conv.next_seq - 1
    return fields


def count_online(conv: Conversation) -> int:
    """How many members have a session; of a large group, about how many."""
    members = conv.members
    if len(members) > ONLINE_EXACT_MEMBERS:
        return min(conv.subscribers.count(), len(members))
    return sum(map(conv.node.registry.online, members))
