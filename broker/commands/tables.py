"""Which handler a command has, before a connection is open and after. Tables, nothing else."""

from __future__ import annotations

from types import MappingProxyType

from actors.node import Table
from broker.commands import (
    groups,
    lists,
    membership,
    messages,
    people,
    presence,
    reading,
    sync,
)
from broker.commands.opening import Opening
from broker.wire import commands as c


def opening_table(opening: Opening) -> Table:
    """What may be said before it is known who speaks."""
    return MappingProxyType(
        {
            c.Hello: opening.hello,
            c.Login: opening.login,
            c.Register: opening.register,
            c.Refresh: opening.refresh,
            c.Ping: opening.ping,
        }
    )


def open_table(opening: Opening) -> Table:
    """What may be said after."""
    return MappingProxyType(
        {
            c.Refresh: opening.refresh,
            c.Ping: opening.ping,
            c.Send: messages.send,
            c.Edit: messages.amend,
            c.Recall: messages.amend,
            c.Pin: messages.amend,
            c.Unpin: messages.amend,
            c.React: messages.amend,
            c.History: reading.history,
            c.Message: reading.message,
            c.Read: reading.read,
            c.Delivered: reading.read,
            c.Typing: reading.typing,
            c.Sync: sync.sync,
            c.Conversations: lists.conversations,
            c.ConversationSet: lists.conversation_set,
            c.Unread: lists.unread,
            c.GroupCreate: groups.group_create,
            c.GroupGet: groups.group_get,
            c.GroupFind: groups.group_find,
            c.GroupMine: groups.group_mine,
            c.GroupSet: groups.group_set,
            c.GroupDissolve: groups.group_dissolve,
            c.GroupJoin: membership.group_join,
            c.GroupLeave: membership.group_leave,
            c.GroupInvite: membership.group_invite,
            c.GroupKick: membership.group_kick,
            c.GroupRole: membership.group_role,
            c.GroupTransfer: membership.group_transfer,
            c.GroupMembers: membership.group_members,
            c.UserGet: people.user_get,
            c.UserFind: people.user_find,
            c.ProfileGet: people.profile_get,
            c.ProfileSet: people.profile_set,
            c.PresenceWatch: presence.presence_watch,
            c.PresenceUnwatch: presence.presence_unwatch,
            c.PresenceGet: presence.presence_get,
        }
    )
