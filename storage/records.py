"""What stores keep, as plain typed records. No I/O, and no rule of the protocol.

An entry is kept as its *payload*: one msgpack map as `encode_entry` makes it. Whoever sends an
entry to a client splices the payload into the wire's `msg` event (`actors.images`).
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

MESSAGE_KINDS = frozenset(
    {"text", "emoji", "sticker", "image", "audio", "video", "file", "custom", "call"}
)
"""Kinds that a person reads: these count as unread; edits, reactions and system entries do not."""


class Entry(Struct, gc=False, omit_defaults=True, kw_only=True):
    """One entry of a conversation's log, in its present state.

    `seq` starts at 1 and has no holes; `ts` is milliseconds since 1970; `body` is what the client
    sent. `ref` is the seq of the entry that this one edits, recalls, pins or reacts to. `edits`
    (never sent to clients) lists the seqs of the edits of this entry, so that a recall can empty
    them too. `key` comes last, for `split_key`.
    """

    seq: int
    sender: int = field(name="from")
    ts: int
    kind: str
    body: Any = None
    ref: int = 0
    reply_to: int = 0
    mentions: list[int] | None = None
    edited_ts: int = 0
    recalled: bool = False
    edits: list[int] | None = None
    key: str = ""


class PlainEntry(Struct, gc=False):
    """An `Entry` with nothing optional, for encoding only: making and encoding it cost half."""

    seq: int
    sender: int = field(name="from")
    ts: int
    kind: str
    body: Any
    key: str


class Append(Struct, gc=False):
    """New entries of a conversation: `payloads[i]` has seq `first + i`; `ts` is the last one's."""

    conv: str
    first: int
    payloads: list[bytes]
    ts: int

    @property
    def last(self) -> int:
        return self.first + len(self.payloads) - 1


class Revision(Struct, gc=False):
    """The new present state of an entry that is already stored (edited or recalled)."""

    conv: str
    seq: int
    payload: bytes


class Group(Struct, kw_only=True):
    """A group's own data; its members are `Member` records. Its conversation is `g/{id}`."""

    id: int
    title: str
    kind: Literal["group", "room"]
    visibility: Literal["public", "private"]
    join: Literal["open", "approval", "invite"]
    history: Literal["all", "joined"]
    avatar: str = ""
    about: str = ""
    created: int
    dissolved: int = 0
    """Milliseconds since 1970, or 0 while the group lives."""


class Member(Struct, gc=False):
    """A user's place in a conversation, direct or group.

    `since` is the seq of the entry that made them a member; 0 in direct conversations.
    """

    conv: str
    user: int
    role: Literal["owner", "admin", "member"] = "member"
    since: int = 0


class Mark(Struct, gc=False):
    """How far a user has read (and their devices received) a conversation; only ever grows."""

    conv: str
    user: int
    read: int = 0
    delivered: int = 0


class Settings(Struct, kw_only=True):
    """What one user set for one conversation.

    `hidden` is the head at which they hid it: it is hidden until a newer entry comes; 0 is not.
    """

    conv: str
    user: int
    muted: bool = False
    pinned: bool = False
    hidden: int = 0
    nickname: str = ""
    draft: str = ""


class Commit(Struct):
    """All that one turn changes.

    Of each conversation it becomes durable as a whole or not at all; a backend of one process makes
    all of it so. Membership and group changes belong to the entry of the same conversation in the
    same commit. `gone` are (conv, user) pairs that are no longer members. `epochs` tells for each
    conversation of a commit under which epoch it is written; empty where one process is alone.
    """

    appends: list[Append] = field(default_factory=list)
    revisions: list[Revision] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    gone: list[tuple[str, int]] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    epochs: dict[str, int] = field(default_factory=dict)

    def without(self, convs: Container[str]) -> Commit:
        """What is left when all of these conversations is passed over."""
        return Commit(
            appends=[part for part in self.appends if part.conv not in convs],
            revisions=[part for part in self.revisions if part.conv not in convs],
            groups=[part for part in self.groups if f"g/{part.id}" not in convs],
            members=[part for part in self.members if part.conv not in convs],
            gone=[part for part in self.gone if part[0] not in convs],
            marks=[part for part in self.marks if part.conv not in convs],
            epochs={conv: epoch for conv, epoch in self.epochs.items() if conv not in convs},
        )

    def __bool__(self) -> bool:
        return bool(
            self.appends or self.revisions or self.marks or self.members or self.gone or self.groups
        )


class Head(Struct, gc=False):
    """The newest entry's seq and time; both 0 for an empty conversation.

    `open`: a writer has it in hand, so that there may be more than this; only the writer knows.
    """

    seq: int = 0
    ts: int = 0
    open: bool = False


class Loaded(Struct):
    """What an actor needs to take up a conversation.

    `tail` are the newest entries' payloads, ascending, at most as many as were asked for. `group`
    is None for direct conversations and for groups that do not exist. `missing_users` (direct only)
    are those of the two who do not exist. `doubt`: its former writer had it in hand, under a lower
    epoch; what it told of the newest entries, and to whom, is not known.
    """

    conv: str
    head: Head
    tail: list[bytes]
    members: list[Member]
    marks: list[Mark]
    group: Group | None = None
    missing_users: list[int] = field(default_factory=list)
    doubt: bool = False


class Membership(Struct):
    """One conversation of one user, as lists and `sync` need it."""

    conv: str
    role: Literal["owner", "admin", "member"]
    since: int
    head: Head
    read: int
    delivered: int
    settings: Settings | None = None
    title: str = ""
    avatar: str = ""
    """Title and avatar of the group; empty for direct conversations."""
    history: Literal["all", "joined"] = "all"


class User(Struct, kw_only=True):
    """An account. `generation` grows whenever all its sessions must end (a new password).

    `last_seen` is milliseconds since 1970, 0 if never.
    """

    id: int
    name: str
    nickname: str = ""
    avatar: str = ""
    bio: str = ""
    status: str = ""
    email: str = ""
    phone: str = ""
    show_online: Literal["everyone", "nobody"] = "everyone"
    show_email: Literal["everyone", "nobody"] = "nobody"
    show_phone: Literal["everyone", "nobody"] = "nobody"
    created: int = 0
    last_seen: int = 0
    disabled: bool = False
    generation: int = 0

    @property
    def hides(self) -> bool:
        """Whether nobody may learn that they are online."""
        return self.show_online != "everyone"


class Session(Struct, kw_only=True):
    """A login that can be refreshed: one family of refresh tokens.

    `token_hash` is the SHA-256 of the one refresh token that is good now; `id` is also the `sid` of
    the access tokens. Times are milliseconds since 1970.
    """

    id: str
    user: int
    token_hash: bytes
    device: str = ""
    created: int
    expires: int


class NodeRecord(Struct, kw_only=True):
    """A node as the others see it; it writes its record again and again, with a higher `beat`.

    `node` is its name, which it keeps; `incarnation` is what owns slots: new with each start, and
    after a lease that was lost; `inbox` is where the process hears the bus, and what presence knows
    it by. `lease_ms` is for how long after a beat it may hold itself for the owner of its slots:
    however impatient another node is, it waits for so long. The rest is for those who look at the
    cluster: `lag_ms` is the age of the oldest word to another node that is not confirmed yet.
    """

    node: str
    incarnation: str
    inbox: str = ""
    beat: int = 1
    draining: bool = False
    http: str = ""
    tcp: str = ""
    started_ms: int = 0
    connections: int = 0
    conversations: int = 0
    lag_ms: int = 0
    lease_ms: int = 0


class SlotRecord(Struct, frozen=True):
    """Who writes the conversations of a slot: an incarnation, or nobody (``""``).

    Each change of owner has a higher `epoch`; 0 if nobody ever owned it.
    """

    slot: int
    owner: str = ""
    epoch: int = 0


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)
encode_entry = _encoder.encode
"""An `Entry` as its payload."""
decode_entry = _decoder.decode
"""A payload as its `Entry`."""
