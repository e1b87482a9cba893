"""What the client hands to an application: events and answers as frozen dataclasses.

Each is made from a frame's map; what a newer broker adds is ignored. Nothing here does I/O.
Times are integer milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.client.errors import BadAnswer

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """An entry of a conversation's log: a message, or any other change that readers see.

    `seq` counts 1, 2, 3, … in the conversation; `ref` is the entry that this one edits, recalls,
    pins or reacts to; `key` is given to the sender's own sessions only.
    """

    conv: str
    seq: int
    sender: int
    ts: int
    kind: str
    body: Any = None
    ref: int | None = None
    reply_to: int | None = None
    mentions: tuple[int, ...] = ()
    key: str | None = None
    edited_ts: int | None = None
    recalled: bool = False


@dataclass(frozen=True, slots=True)
class Typing:
    """A member began (`on`) or ceased to write."""

    conv: str
    user: int
    on: bool


@dataclass(frozen=True, slots=True)
class UserPresence:
    """Whether a user has a live session; `last_seen` where the user allows it."""

    user: int
    online: bool
    last_seen: int | None = None
    status: str = ""


@dataclass(frozen=True, slots=True)
class Presence:
    """The presence of watched users changed."""

    users: tuple[UserPresence, ...]


@dataclass(frozen=True, slots=True)
class ReadMark:
    """A user, perhaps oneself on another device, has read up to `seq`."""

    conv: str
    user: int
    seq: int


@dataclass(frozen=True, slots=True)
class DeliveredMark:
    """A user's device has received up to `seq`."""

    conv: str
    user: int
    seq: int


@dataclass(frozen=True, slots=True)
class ConversationChanged:
    """Membership, title or the like of a conversation changed; `change` names it."""

    conv: str
    change: str
    fields: Fields


@dataclass(frozen=True, slots=True)
class ConversationSettings:
    """One's own settings of a conversation were changed on another device."""

    conv: str
    fields: Fields


@dataclass(frozen=True, slots=True)
class ConnectionChanged:
    """The client lost its connection (`up` False, and why) or is back and catching up."""

    up: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class OtherEvent:
    """An event that this version of the client has no type for."""

    name: str
    fields: Fields


Event = (
    Message
    | Typing
    | Presence
    | ReadMark
    | DeliveredMark
    | ConversationChanged
    | ConversationSettings
    | ConnectionChanged
    | OtherEvent
)


@dataclass(frozen=True, slots=True)
class Ack:
    """A message is durable at this place of its conversation. `online`: in direct conversations,
    whether the other side has a live session."""

    conv: str
    seq: int
    ts: int
    online: bool | None = None


@dataclass(frozen=True, slots=True)
class Credentials:
    """A login: `token` opens connections until `expires`; `refresh` is good for one renewal."""

    token: str
    refresh: str
    expires: int
    user: int

    def __repr__(self) -> str:
        return f"Credentials(user={self.user}, expires={self.expires})"


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of a conversation, ascending, and the conversation's newest seq."""

    entries: tuple[Message, ...]
    head: int


@dataclass(frozen=True, slots=True)
class Conversation:
    """A line of the list of conversations; `last` is the newest entry, if any."""

    conv: str
    title: str
    head: int
    read: int
    unread: int
    last: Message | None
    fields: Fields
    """All that the broker said, under the protocol's names."""


def message(fields: Fields, conv: str | None = None) -> Message:
    """An entry's map as `Message`. Raises `BadAnswer`. `conv` is for maps without their own."""
    try:
        return Message(
            fields["conv"] if conv is None else conv,
            fields["seq"],
            fields["from"],
            fields["ts"],
            fields["kind"],
            fields.get("body"),
            fields.get("ref") or None,
            fields.get("reply_to") or None,
            tuple(fields.get("mentions") or ()),
            fields.get("key"),
            fields.get("edited_ts") or None,
            bool(fields.get("recalled")),
        )
    except (KeyError, TypeError) as error:
        raise BadAnswer(f"the broker sent an entry without {error}") from error


def event(fields: Fields) -> Event:
    """An event's map as its type, entries excepted. Raises `BadAnswer`."""
    name = fields.get("t")
    try:
        match name:
            case "typing":
                return Typing(fields["conv"], fields["user"], bool(fields.get("on", True)))
            case "presence":
                return Presence(tuple(map(user_presence, fields["users"])))
            case "read":
                return ReadMark(fields["conv"], fields["user"], fields["seq"])
            case "delivered":
                return DeliveredMark(fields["conv"], fields["user"], fields["seq"])
            case "conv":
                return ConversationChanged(fields["conv"], fields["change"], fields)
            case "conversation":
                return ConversationSettings(fields["conv"], fields)
            case _:
                return OtherEvent(str(name), fields)
    except (KeyError, TypeError) as error:
        raise BadAnswer(f"the broker sent a {name} event without {error}") from error


def user_presence(fields: Fields) -> UserPresence:
    """One user's presence, from events and from answers."""
    return UserPresence(
        fields["user"], bool(fields["online"]), fields.get("last_seen"), fields.get("status") or ""
    )


def conversation(fields: Fields) -> Conversation:
    """A line of `conversations`. Raises `BadAnswer`."""
    try:
        conv, last = fields["conv"], fields.get("last")
        return Conversation(
            conv=conv,
            title=fields.get("title") or "",
            head=fields["head"],
            read=fields.get("read", 0),
            unread=fields.get("unread", 0),
            last=message(last, conv) if isinstance(last, dict) else None,
            fields=fields,
        )
    except (KeyError, TypeError) as error:
        raise BadAnswer(f"the broker sent a conversation without {error}") from error


@dataclass(frozen=True, slots=True)
class Group:
    """A group as its members or, if it is public, everybody may see it."""

    conv: str
    title: str
    fields: Fields
    """All that the broker said, under the protocol's names."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group and their role: owner, admin or member."""

    user: int
    role: str


def group(fields: Fields) -> Group:
    """A group's map. Raises `BadAnswer`."""
    conv = fields.get("conv")
    if not isinstance(conv, str):
        raise BadAnswer("the broker sent a group without conv")
    return Group(conv, str(fields.get("title") or ""), fields)


def member(fields: Fields) -> Member:
    """A member's map. Raises `BadAnswer`."""
    try:
        return Member(fields["user"], fields.get("role") or "member")
    except (KeyError, TypeError) as error:
        raise BadAnswer(f"the broker sent a member without {error}") from error
