"""Who is in a group, and as what: the rules of coming, going, roles and handing over.

The owner may do everything, admins what concerns members, members may leave and, where the group is
open, invite. Changes take effect at the place of their entry in the log: who comes reads that entry
first, who goes reads it last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from broker.commands.conversations import group_of, member_of, named_group
from broker.commands.group_changes import (
    admit_all,
    check_room,
    describe_to,
    done,
    record,
    visible_group,
)
from broker.commands.groups import check_users, end_group
from broker.commands.pages import Room
from broker.wire.commands import (
    GroupInvite,
    GroupJoin,
    GroupKick,
    GroupLeave,
    GroupMembers,
    GroupRole,
    GroupTransfer,
)
from broker.wire.errors import Code, Refusal

if TYPE_CHECKING:
    from actors.connection import Connection
    from actors.conversation import Conversation
    from storage.records import Member


# Coming


def group_join(connection: Connection, command: GroupJoin) -> None:
    """Become a member of an open group."""
    connection.post(named_group(connection, command), command, _join)


def _join(conv: Conversation, connection: Connection, command: GroupJoin) -> None:
    user = connection.user
    group = visible_group(conv, user)
    if user in conv.members:
        raise Refusal(Code.CONFLICT, "you are a member already")
    if group.join != "open":
        raise Refusal(
            Code.FORBIDDEN, "this group is not open: ask its owner or an admin to invite you"
        )
    check_room(conv, 1)
    admit_all(conv, [user])
    entry = record(conv, user, "joined", [user], title=group.title)
    done(conv, connection, command.id, seq=entry.seq, **describe_to(conv, user))


def group_invite(connection: Connection, command: GroupInvite) -> None:
    """Make others members; those who are already are passed over. The answer names the new ones."""
    connection.post(named_group(connection, command), command, _invite)


def _invite(conv: Conversation, connection: Connection, command: GroupInvite) -> None:
    _check_may_invite(conv, connection.user)
    conv.query(connection, command, _look_up)


def _check_may_invite(conv: Conversation, user: int) -> None:
    member = member_of(conv, user)
    if member.role == "member" and group_of(conv).join != "open":
        raise Refusal(Code.FORBIDDEN, "only the owner and admins may invite to this group")


async def _look_up(conv: Conversation, connection: Connection, command: GroupInvite) -> None:
    await check_users(conv.node, dict.fromkeys(command.users), field="users")
    conv.proceed(connection, command, _invited)


def _invited(conv: Conversation, connection: Connection, command: GroupInvite) -> None:
    user = connection.user
    _check_may_invite(conv, user)
    new = [other for other in dict.fromkeys(command.users) if other not in conv.members]
    check_room(conv, len(new), "users")
    fields: dict[str, object] = {"users": new}
    if new:
        admit_all(conv, new)
        fields["seq"] = record(conv, user, "joined", new, title=group_of(conv).title).seq
    done(conv, connection, command.id, **fields)


# Going


def group_leave(connection: Connection, command: GroupLeave) -> None:
    """End one's own membership. With its last member a group ends."""
    connection.post(named_group(connection, command), command, _leave)


def _leave(conv: Conversation, connection: Connection, command: GroupLeave) -> None:
    user = connection.user
    member = member_of(conv, user)
    alone = len(conv.members) == 1
    if member.role == "owner" and not alone:
        raise Refusal(
            Code.FORBIDDEN, "the owner must first transfer the group to another, or dissolve it"
        )
    entry = record(conv, user, "left", [user], told=[user])
    done(conv, connection, command.id, seq=entry.seq)
    if alone:
        end_group(conv)
    else:
        conv.expel(user)


def group_kick(connection: Connection, command: GroupKick) -> None:
    """End another's membership."""
    connection.post(named_group(connection, command), command, _kick)


def _kick(conv: Conversation, connection: Connection, command: GroupKick) -> None:
    by = _moderator(conv, connection.user, "kick")
    if command.user == connection.user:
        raise Refusal(Code.BAD_REQUEST, "to go yourself, leave", field="user")
    member = _other(conv, command.user)
    if by.role != "owner" and member.role != "member":
        raise Refusal(Code.FORBIDDEN, "only the owner may kick admins", field="user")
    entry = record(conv, connection.user, "kicked", [command.user], told=[command.user])
    done(conv, connection, command.id, seq=entry.seq)
    conv.expel(command.user)


# Roles


def group_role(connection: Connection, command: GroupRole) -> None:
    """Make a member an admin, or an admin a member."""
    connection.post(named_group(connection, command), command, _role)


def _role(conv: Conversation, connection: Connection, command: GroupRole) -> None:
    _owner(conv, connection.user, "name admins")
    if command.user == connection.user:
        raise Refusal(Code.BAD_REQUEST, "the owner's role changes by a transfer", field="user")
    member = _other(conv, command.user)
    fields: dict[str, object] = {}
    if member.role != command.role:
        conv.stage_member(replace(member, role=command.role))
        entry = record(conv, connection.user, "role", [command.user], role=command.role)
        fields["seq"] = entry.seq
    done(conv, connection, command.id, **fields)


def group_transfer(connection: Connection, command: GroupTransfer) -> None:
    """Make a member the owner; the owner becomes an admin."""
    connection.post(named_group(connection, command), command, _transfer)


def _transfer(conv: Conversation, connection: Connection, command: GroupTransfer) -> None:
    owner = _owner(conv, connection.user, "transfer the group")
    if command.user == connection.user:
        raise Refusal(Code.BAD_REQUEST, "the group is yours already", field="user")
    heir = _other(conv, command.user)
    conv.stage_member(replace(owner, role="admin"))
    conv.stage_member(replace(heir, role="owner"))
    entry = record(conv, connection.user, "transferred", [command.user])
    done(conv, connection, command.id, seq=entry.seq)


def _moderator(conv: Conversation, user: int, what: str) -> Member:
    member = member_of(conv, user)
    if member.role == "member":
        raise Refusal(Code.FORBIDDEN, f"only the owner and admins may {what}")
    return member


def _owner(conv: Conversation, user: int, what: str) -> Member:
    member = member_of(conv, user)
    if member.role != "owner":
        raise Refusal(Code.FORBIDDEN, f"only the owner may {what}")
    return member


def _other(conv: Conversation, user: int) -> Member:
    member = conv.members.get(user)
    if member is None:
        raise Refusal(Code.NOT_FOUND, "this user is not a member of the group", field="user")
    return member


# Looking


def group_members(connection: Connection, command: GroupMembers) -> None:
    """A page of the members, by user id, for members only."""
    connection.post(named_group(connection, command), command, _members)


def _members(conv: Conversation, connection: Connection, command: GroupMembers) -> None:
    member_of(conv, connection.user)
    conv.query(connection, command, _stored_members)


async def _stored_members(
    conv: Conversation, connection: Connection, command: GroupMembers
) -> None:
    node = conv.node
    members = await node.store.members(conv.name, after=command.after or 0, limit=command.limit)
    accounts = await node.store.users([member.user for member in members])
    member_of(conv, connection.user)
    items = []
    for member in members:
        item: dict[str, object] = {"user": member.user, "role": member.role}
        account = accounts.get(member.user)
        if account is not None:
            item["name"] = account.name
            item["nickname"] = account.nickname
            item["avatar"] = account.avatar
            item["online"] = node.presence.state_of(account)["online"]
        items.append(item)
    fitting = Room(connection).fill(items)
    fields: dict[str, object] = {"members": fitting}
    if fitting and (len(fitting) < len(members) or len(members) == command.limit):
        fields["next"] = members[len(fitting) - 1].user
    connection.ok(command.id, **fields)
