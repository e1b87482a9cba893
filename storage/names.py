"""How stores read the names of conversations: `d/5/9` between users 5 and 9, `g/12` for group 12.

Whether a name is one that a client may use is decided elsewhere; here a strange name is simply a
conversation without members of its own.
"""

from __future__ import annotations

from zlib import crc32

from storage.records import Member

SLOTS = 1024
"""Shares of all conversations, each written by one node. It can never be changed."""
ID_MAX_DIGITS = 16
"""Ids end at 2^53-1; what is longer is no id."""


def direct_users(conv: str) -> tuple[int, ...]:
    """The users of a direct conversation (one, when it is with oneself); empty for any other."""
    kind, _, rest = conv.partition("/")
    low, _, high = rest.partition("/")
    if kind != "d" or not _is_id(low) or not _is_id(high):
        return ()
    return (int(low),) if low == high else (int(low), int(high))


def group_id(conv: str) -> int | None:
    """The id of a group's conversation; None for any other."""
    kind, _, rest = conv.partition("/")
    return int(rest) if kind == "g" and _is_id(rest) else None


def group_conv(group: int) -> str:
    """The name of a group's conversation."""
    return f"g/{group}"


def direct_members(conv: str) -> list[Member]:
    """A direct conversation's members follow from its name, whoever they are."""
    return [Member(conv=conv, user=user) for user in sorted(direct_users(conv))]


def slot_of(conv: str) -> int:
    """The slot that a conversation is in: CRC-32 (as in zlib) of its name, modulo `SLOTS`."""
    return crc32(conv.encode()) % SLOTS


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= ID_MAX_DIGITS
