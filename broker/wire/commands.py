"""What clients may say: one typed, validated struct a command.

The field `t` chooses the struct. Unknown fields are ignored; a missing or wrong one is named in the
error. Rules that need state (membership, age, roles) are not here but in `broker.commands`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from broker.wire.limits import (
    DEVICE_MAX_CHARS,
    HISTORY_MAX_ENTRIES,
    KEY_MAX_BYTES,
    LIST_MAX_ITEMS,
    MAX_ID,
    MENTIONS_MAX,
    NAME_MAX_CHARS,
    PASSWORD_MAX_CHARS,
    PASSWORD_MIN_CHARS,
    PRESENCE_MAX_USERS,
    SYNC_MAX_CONVERSATIONS,
    TEXT_FIELD_MAX_CHARS,
    TITLE_MAX_CHARS,
)

Id = Annotated[int, Meta(ge=1, le=MAX_ID)]
Count = Annotated[int, Meta(ge=0, le=MAX_ID)]
Key = Annotated[str, Meta(min_length=1, max_length=KEY_MAX_BYTES)]
ConvName = Annotated[str, Meta(min_length=3, max_length=40)]
Name = Annotated[str, Meta(min_length=1, max_length=NAME_MAX_CHARS)]
Password = Annotated[str, Meta(max_length=PASSWORD_MAX_CHARS)]
NewPassword = Annotated[str, Meta(min_length=PASSWORD_MIN_CHARS, max_length=PASSWORD_MAX_CHARS)]
Title = Annotated[str, Meta(min_length=1, max_length=TITLE_MAX_CHARS)]
Label = Annotated[str, Meta(max_length=TITLE_MAX_CHARS)]
Text = Annotated[str, Meta(max_length=TEXT_FIELD_MAX_CHARS)]
Device = Annotated[str, Meta(max_length=DEVICE_MAX_CHARS)]
Limit = Annotated[int, Meta(ge=1, le=LIST_MAX_ITEMS)]
Users = Annotated[list[Id], Meta(max_length=LIST_MAX_ITEMS)]
WatchedUsers = Annotated[list[Id], Meta(min_length=1, max_length=PRESENCE_MAX_USERS)]
Body = str | dict[str, Any] | None

Encoding = Literal["msgpack", "json"]
GroupKind = Literal["group", "room"]
Visibility = Literal["public", "private"]
Join = Literal["open", "approval", "invite"]
Role = Literal["admin", "member"]
HistoryFor = Literal["all", "joined"]
SentKind = Literal["text", "emoji", "sticker", "image", "audio", "video", "file", "custom"]
Audience = Literal["everyone", "nobody"]


class Command(Struct, tag_field="t", gc=False, kw_only=True):
    """Every command carries the client's own number, echoed in its reply."""

    id: Count


class ToUser(Struct, gc=False):
    user: Id


# Opening


class Hello(Command, tag="hello"):
    token: str
    device: Device | None = None
    encoding: Encoding | None = None


class Login(Command, tag="login"):
    name: Name
    password: Password
    device: Device | None = None


class Register(Command, tag="register"):
    name: Name
    password: NewPassword
    nickname: Title | None = None
    email: Text | None = None
    phone: Text | None = None


class Refresh(Command, tag="refresh"):
    refresh: str


class Ping(Command, tag="ping"):
    pass


# Messages


class Send(Command, tag="send"):
    key: Key
    kind: SentKind
    body: Body
    conv: ConvName | None = None
    to: ToUser | None = None
    reply_to: Id | None = None
    mentions: Annotated[list[Id], Meta(max_length=MENTIONS_MAX)] | None = None


class Amendment(Command):
    """A command that appends an entry which refers to an earlier one."""

    conv: ConvName
    ref: Id
    key: Key


class Edit(Amendment, tag="edit"):
    body: Body


class Recall(Amendment, tag="recall"):
    pass


class Pin(Amendment, tag="pin"):
    pass


class Unpin(Amendment, tag="unpin"):
    pass


class React(Amendment, tag="react"):
    emoji: Annotated[str, Meta(min_length=1, max_length=64)]
    on: bool = True


class History(Command, tag="history"):
    conv: ConvName
    before: Count | None = None
    after: Count | None = None
    limit: Annotated[int, Meta(ge=1, le=HISTORY_MAX_ENTRIES)] = 50


class Message(Command, tag="message"):
    conv: ConvName
    seq: Id


class Sync(Command, tag="sync"):
    """`next` is the mark that the last answer gave; `limit` counts conversations in one answer."""

    cursors: dict[str, Count] = {}
    limit: Annotated[int, Meta(ge=1, le=SYNC_MAX_CONVERSATIONS)] = 50
    next: str | None = None


class Read(Command, tag="read"):
    conv: ConvName
    seq: Count


class Delivered(Command, tag="delivered"):
    conv: ConvName
    seq: Count


class Typing(Command, tag="typing"):
    conv: ConvName
    on: bool = True


class Conversations(Command, tag="conversations"):
    after: str | None = None
    limit: Limit = 50


class ConversationSet(Command, tag="conversation.set"):
    conv: ConvName
    muted: bool | None = None
    pinned: bool | None = None
    hidden: bool | None = None
    nickname: Text | None = None
    draft: Text | None = None


class Unread(Command, tag="unread"):
    limit: Limit = 50


# Groups


class GroupCreate(Command, tag="group.create"):
    title: Title
    kind: GroupKind = "group"
    visibility: Visibility = "private"
    join: Join = "invite"
    history: HistoryFor = "all"
    avatar: Text | None = None
    about: Text | None = None
    members: Users = []


class GroupCommand(Command, kw_only=True):
    """A group is named by its conversation (`g/12`) or by its id (12); one of the two."""

    conv: ConvName | None = None
    group: Id | None = None


class GroupGet(GroupCommand, tag="group.get"):
    pass


class GroupFind(Command, tag="group.find"):
    query: Label = ""
    after: str | None = None
    limit: Limit = 50


class GroupMine(Command, tag="group.mine"):
    after: str | None = None
    limit: Limit = 50


class GroupSet(GroupCommand, tag="group.set"):
    title: Title | None = None
    visibility: Visibility | None = None
    join: Join | None = None
    history: HistoryFor | None = None
    avatar: Text | None = None
    about: Text | None = None


class GroupJoin(GroupCommand, tag="group.join"):
    pass


class GroupLeave(GroupCommand, tag="group.leave"):
    pass


class GroupInvite(GroupCommand, tag="group.invite"):
    users: Annotated[list[Id], Meta(min_length=1, max_length=LIST_MAX_ITEMS)]


class GroupKick(GroupCommand, tag="group.kick"):
    user: Id


class GroupRole(GroupCommand, tag="group.role"):
    user: Id
    role: Role


class GroupMembers(GroupCommand, tag="group.members"):
    after: Id | None = None
    limit: Limit = 50


class GroupTransfer(GroupCommand, tag="group.transfer"):
    user: Id


class GroupDissolve(GroupCommand, tag="group.dissolve"):
    pass


# People


class UserGet(Command, tag="user.get"):
    user: Id | None = None
    name: Name | None = None


class UserFind(Command, tag="user.find"):
    """By the beginning of a name, without regard to case."""

    query: Name
    limit: Limit = 20


class ProfileGet(Command, tag="profile.get"):
    pass


class ProfileSet(Command, tag="profile.set"):
    """What is given is changed; an empty string takes it away."""

    nickname: Label | None = None
    avatar: Text | None = None
    bio: Text | None = None
    status: Label | None = None
    email: Text | None = None
    phone: Text | None = None
    show_online: Audience | None = None
    show_email: Audience | None = None
    show_phone: Audience | None = None


class PresenceWatch(Command, tag="presence.watch"):
    users: WatchedUsers


class PresenceUnwatch(Command, tag="presence.unwatch"):
    users: WatchedUsers


class PresenceGet(Command, tag="presence.get"):
    users: WatchedUsers


OPENING = Hello | Login | Register | Refresh | Ping

AnyCommand = (
    OPENING
    | Send
    | Edit
    | Recall
    | Pin
    | Unpin
    | React
    | History
    | Message
    | Sync
    | Read
    | Delivered
    | Typing
    | Conversations
    | ConversationSet
    | Unread
    | GroupCreate
    | GroupGet
    | GroupFind
    | GroupMine
    | GroupSet
    | GroupJoin
    | GroupLeave
    | GroupInvite
    | GroupKick
    | GroupRole
    | GroupMembers
    | GroupTransfer
    | GroupDissolve
    | UserGet
    | UserFind
    | ProfileGet
    | ProfileSet
    | PresenceWatch
    | PresenceUnwatch
    | PresenceGet
)
"""Every command, for the decoders; `typing.get_args` lists them."""
