"""A user's conversations as lists: all of them, the unread ones; and what they set for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import trio

from broker.commands.conversations import conversation, member_of, session_of
from broker.commands.pages import Room, bad_mark
from broker.commands.standing import Standing, standings
from broker.wire.commands import Conversations, ConversationSet, Unread
from storage.records import Settings, User

if TYPE_CHECKING:
    from actors.connection import Connection
    from actors.conversation import Conversation

UNREAD_TOTAL_MAX = 10_000
"""Unread messages are counted up to about here; a client shows no more digits anyway."""
UNREAD_LOOKS_MAX = 1_000
"""Conversations with new entries that are looked at for unread messages, the latest first."""

Place = tuple[bool, int, str]
"""Where a conversation stands in the list: pinned first, then by the last entry's time."""


# conversations


def conversations(connection: Connection, command: Conversations) -> None:
    """The list. What is hidden is left out until it has a newer entry."""
    _place_of_mark(command.after)
    session_of(connection).submit(connection, command, _conversations)


async def _conversations(connection: Connection, command: Conversations) -> None:
    after = _place_of_mark(command.after)
    listed = sorted((s for s in await standings(connection) if not s.hidden), key=_place)
    if after is not None:
        listed = [standing for standing in listed if _place(standing) > after]
    page = listed[: command.limit]
    others = await connection.node.store.users(s.other for s in page if s.other is not None)
    room = Room(connection)
    items = []
    for standing in page:
        raw = room.take(await _item(standing, others))
        if raw is None:
            break
        items.append(raw)
    fields: dict[str, object] = {"conversations": items}
    if len(items) < len(listed):
        fields["next"] = _mark(page[len(items) - 1])
    connection.ok(command.id, **fields)


async def _item(standing: Standing, others: dict[int, User]) -> dict[str, object]:
    membership = standing.membership
    title, avatar = membership.title, membership.avatar
    if standing.other in others:
        other = others[standing.other]
        title, avatar = other.nickname or other.name, other.avatar
    settings = membership.settings
    return {
        **await standing.summary(),
        "title": title,
        "avatar": avatar,
        "role": membership.role,
        "pinned": standing.pinned,
        "nickname": settings.nickname if settings else "",
        "draft": settings.draft if settings else "",
    }


def _place(standing: Standing) -> Place:
    return not standing.pinned, -standing.ts, standing.conv


def _mark(standing: Standing) -> str:
    unpinned, ts, conv = _place(standing)
    return f"{int(unpinned)}:{-ts}:{conv}"


def _place_of_mark(mark: str | None) -> Place | None:
    if mark is None:
        return None
    unpinned, _, rest = mark.partition(":")
    ts, _, conv = rest.partition(":")
    if unpinned not in ("0", "1") or not (ts.isascii() and ts.isdecimal() and len(ts) < 20):
        raise bad_mark("after")
    return unpinned == "1", -int(ts), conv


# unread


def unread(connection: Connection, command: Unread) -> None:
    """The conversations with unread messages, the latest first, and how many in all."""
    session_of(connection).submit(connection, command, _unread)


async def _unread(connection: Connection, command: Unread) -> None:
    moved = [s for s in await standings(connection) if s.head > s.read_from]
    moved.sort(key=lambda standing: (-standing.ts, standing.conv))
    room = Room(connection)
    items: list[msgspec.Raw] = []
    total = 0
    full = False
    for standing in moved[:UNREAD_LOOKS_MAX]:
        # What actors know needs no waiting: others must get their turn in between.
        await trio.lowlevel.checkpoint()
        count, _ = await standing.unread()
        if count and not full and len(items) < command.limit:
            raw = room.take(await standing.summary())
            full = raw is None
            if raw is not None:
                items.append(raw)
        total += count
        if total >= UNREAD_TOTAL_MAX:
            break
    connection.ok(command.id, total=min(total, UNREAD_TOTAL_MAX), conversations=items)


# conversation.set


def conversation_set(connection: Connection, command: ConversationSet) -> None:
    """Change what the caller set for a conversation; their other sessions learn of it."""
    connection.post(conversation(connection, command.conv), command, _set)


def _set(conv: Conversation, connection: Connection, command: ConversationSet) -> None:
    member_of(conv, connection.user)
    conv.query(connection, command, _change_settings)


async def _change_settings(
    conv: Conversation, connection: Connection, command: ConversationSet
) -> None:
    store = conv.node.store
    session = session_of(connection)
    async with session.changing:
        settings = await store.settings(connection.user, conv.name)
        if settings is None:
            settings = Settings(conv=conv.name, user=connection.user)
        for field in ("muted", "pinned", "nickname", "draft"):
            value = getattr(command, field)
            if value is not None:
                setattr(settings, field, value)
        if command.hidden is not None:
            settings.hidden = conv.head if command.hidden else 0
        await store.put_settings(settings, conv.epoch)
        fields: dict[str, object] = {
            "conv": conv.name,
            "muted": settings.muted,
            "pinned": settings.pinned,
            "hidden": 0 < conv.head <= settings.hidden,
            "nickname": settings.nickname,
            "draft": settings.draft,
        }
        connection.ok(command.id, **fields)
        event = {"t": "conversation", **fields}
        conv.node.registry.tell([connection.user], event, besides=connection)
