"""Named limits of the wire and of what a client may ask, each with its unit in the last word.

Those in `Limits` are configurable and announced in `welcome`; the others are part of the protocol.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

MAX_ID = 2**53 - 1
"""Ids are whole in JavaScript."""

KEY_MAX_BYTES = 64
TITLE_MAX_CHARS = 128
NAME_MAX_CHARS = 64
TEXT_FIELD_MAX_CHARS = 4096
PASSWORD_MIN_CHARS = 8
PASSWORD_MAX_CHARS = 256
DEVICE_MAX_CHARS = 128
MENTIONS_MAX = 100
HISTORY_MAX_ENTRIES = 200
LIST_MAX_ITEMS = 200
SYNC_MAX_CURSORS = 10_000
SYNC_MAX_CONVERSATIONS = 200
PRESENCE_MAX_USERS = 1_000
KEY_WINDOW_ENTRIES = 1_000
"""How many of a conversation's newest entries an idempotency key is remembered for, at least."""
UNREAD_WINDOW_ENTRIES = 1_000
"""Unread entries are counted over this many of the newest; more are reported as this number."""


class Limits(Struct, frozen=True):
    """The limits that the server announces in `welcome`."""

    frame_bytes: Annotated[
        int, Meta(ge=1024, le=16 << 20, description="Largest frame in either direction.")
    ] = 128 * 1024
    body_bytes: Annotated[
        int, Meta(ge=256, le=16 << 20, description="Largest body of an entry, as msgpack.")
    ] = 64 * 1024
    nesting: Annotated[
        int, Meta(ge=2, le=64, description="How deep maps and lists of a body may be nested.")
    ] = 16
    in_flight: Annotated[
        int,
        Meta(
            ge=1,
            le=65_536,
            description="Commands of one connection that may be unanswered before the server "
            "stops reading it.",
        ),
    ] = 256
    group_members: Annotated[int, Meta(ge=2, le=1_000_000, description="Members of one group.")] = (
        10_000
    )
