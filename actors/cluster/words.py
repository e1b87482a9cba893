"""What nodes say to each other: envelopes of words, as msgpack arrays. No I/O, no state.

Both ends run the same version or one apart; fields may be added at the end of a word, with a
default, and an unknown word makes the envelope unreadable, which counts as lost.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, field


class Word(Struct, array_like=True, gc=False):
    """The base of all words; the tag is a short name."""


class Confirm(Word, tag="confirm"):
    """Somebody waits for the confirmation of this envelope: send it at once."""


# About users and sessions


class Start(Word, tag="start"):
    """The first word of a session of the link: who is connected here (`hidden`: and hides it).

    It replaces all that was said in earlier sessions.
    """

    users: list[int]
    hidden: list[int]


class Here(Word, tag="here"):
    """Users with a session here from now on. Whoever hears it confirms at once."""

    users: list[int]
    hidden: list[int]


class Gone(Word, tag="gone"):
    """Users without a session here from now on, last seen at this time (0: not known)."""

    users: list[int]
    seen_ms: int = 0


class Changed(Word, tag="changed"):
    """What others may see of these users has changed: their accounts are to be read again."""

    users: list[int]
    hidden: bool


class Leave(Word, tag="leave"):
    """My last word: nobody need wait for me any more."""


class Suspect(Word, tag="suspect"):
    """Some session may have ended: it is time to look."""


class Tell(Word, tag="tell"):
    """An event for all connections of these users, but one. `behind`: only for those who are behind
    in that conversation."""

    users: list[int]
    event: dict[str, Any]
    besides: int = 0
    behind: str = ""


# From the owner of a conversation to those who follow it


class Join(Word, tag="join"):
    """These users of yours are members, and get live what comes after `head`.

    `whole`: and no others are; the first word about a conversation in a session, or under an epoch.
    `came`: with which entry each became a member; whoever was one before that was none in between.
    `doubt`: the owner cannot say what they were told before. If you do not know either, they are
    behind.
    """

    conv: str
    epoch: int
    head: int
    users: list[int]
    came: list[int]
    whole: bool
    doubt: bool


class Part(Word, tag="part"):
    """These users are members no more."""

    conv: str
    users: list[int]


class Close(Word, tag="close"):
    """The conversation is put away: you were told everything, and need not follow it."""

    conv: str


class Batch(Word, tag="batch"):
    """Entries, durable, from `first` on: payloads, and what `actors.images.Drafts` says of each."""

    conv: str
    first: int
    payloads: list[bytes]
    cuts: list[int]
    senders: list[int]


class Event(Word, tag="event"):
    """An event that is no entry, for all who follow, but one connection."""

    conv: str
    event: dict[str, Any]
    besides: int = 0
    ephemeral: bool = False


class Behind(Word, tag="behind"):
    """Whoever follows may have missed something, and has to pull."""

    conv: str
    head: int


# Commands and their answers


class Ask(Word, tag="ask"):
    """A command of a client's connection, for the owner of a slot. `wire` is its encoding.

    `attempt`: a new one begins when the last is over, all its commands answered or `Moved`.
    """

    tag: int
    slot: int
    connection: int
    user: int
    wire: int
    command: bytes
    attempt: int = 0


class Answer(Word, tag="answer"):
    """The reply to a command, in the client's encoding.

    With `conv` it is a page, which told of all entries up to `seq`, when the newest was `head`.
    """

    tag: int
    reply: bytes
    conv: str = ""
    seq: int = 0
    head: int = 0


class Moved(Word, tag="moved"):
    """The command was not looked at: the slot is not mine (any more).

    Nor will any other of this attempt be, which would overtake it.
    """

    tag: int


class AskHeads(Word, tag="ask-heads"):
    """What are the newest entries of these conversations of a user?"""

    tag: int
    user: int
    convs: list[str]


class Heads(Word, tag="heads"):
    """(conv, seq, ts, since) of each that is mine; the others are not. `since` is as a member's, or
    -1 where the user is none."""

    tag: int
    heads: list[tuple[str, int, int, int]]


class Slots(Word, tag="slots"):
    """Slots have changed hands: (slot, owner, epoch)."""

    slots: list[tuple[int, str, int]]


AnyWord = (
    Confirm
    | Start
    | Here
    | Gone
    | Changed
    | Leave
    | Suspect
    | Tell
    | Join
    | Part
    | Close
    | Batch
    | Event
    | Behind
    | Ask
    | Answer
    | Moved
    | AskHeads
    | Heads
    | Slots
)


class Envelope(Struct, array_like=True, gc=False):
    """Numbered from 1 within a session of the sender's half of the link.

    `heard_session` and `heard` confirm the other half: everything up to that number has come;
    `heard_session` 0: something is missing, begin a new session.
    """

    sender: str
    session: int
    number: int
    heard_session: int
    heard: int
    words: list[AnyWord] = field(default_factory=list)


class Sealed(Struct, array_like=True, gc=False):
    """An `Envelope` to be sent: its words are encoded already, once for however many receivers."""

    sender: str
    session: int
    number: int
    heard_session: int
    heard: int
    words: list[msgspec.Raw]


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Envelope).decode
