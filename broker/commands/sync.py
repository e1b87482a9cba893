"""Catching up after an absence: everything past a client's cursors, in few answers.

What was visible live on this connection before the command is covered by the answer: entries are
in the store before anybody sees them, and active conversations are asked themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import trio
from msgspec import Struct

from actors.images import message_event
from broker.commands.conversations import session_of
from broker.commands.pages import Room
from broker.commands.standing import Standing, standings
from broker.wire.commands import Sync
from broker.wire.errors import Code, Refusal
from broker.wire.limits import SYNC_MAX_CURSORS
from storage.errors import Unavailable

if TYPE_CHECKING:
    from msgspec import Raw

    from actors.connection import Connection

ENTRIES_PER_CONVERSATION = 50
"""More of a conversation are for `history after`."""
CONVERSATION_OVERHEAD_BYTES = 256
"""What a conversation has around its entries."""
LOOKS_AT_ONCE = 16
"""Conversations that are read side by side; those that do not fit the answer are read in vain."""


class Look(Struct):
    """What is sent of one conversation: the next payloads, and all that is unread."""

    payloads: list[bytes]
    unread: int
    mentions: int


def sync(connection: Connection, command: Sync) -> None:
    """The caller's conversations that moved past the cursors, by name; `next` where there are more.

    A conversation without a cursor is sent from its beginning, or from where the caller may read.
    """
    if len(command.cursors) > SYNC_MAX_CURSORS:
        raise Refusal(
            Code.TOO_LARGE, f"at most {SYNC_MAX_CURSORS} cursors at once", field="cursors"
        )
    session_of(connection).submit(connection, command, _sync)


async def _sync(connection: Connection, command: Sync) -> None:
    cursors = command.cursors
    past = [
        standing
        for standing in await standings(connection, past=cursors)
        if standing.head > cursors.get(standing.conv, 0)
    ]
    moved = [each for each in past if command.next is None or each.conv > command.next]
    moved.sort(key=lambda standing: standing.conv)
    room = Room(connection)
    sent: list[tuple[str, int]] = []
    items: list[dict[str, Any]] = []
    looks: list[Look] = []
    for number, standing in enumerate(moved[: command.limit]):
        if number == len(looks):
            some = moved[number : min(number + LOOKS_AT_ONCE, command.limit)]
            looks += await _look_at(some, cursors)
        look = looks[number]
        entries = _fill(room, standing, look.payloads)
        if look.payloads and not entries:
            break
        last = max(cursors.get(standing.conv, 0), standing.first - 1) + len(entries)
        sent.append((standing.conv, last))
        items.append(
            {
                "conv": standing.conv,
                "head": standing.head,
                "read": standing.read,
                "unread": look.unread,
                "mentions": look.mentions,
                "entries": entries,
                "more": last < standing.head,
            }
        )
    fields: dict[str, object] = {"conversations": items}
    if len(items) < len(moved):
        fields["next"] = items[-1]["conv"]
    for (name, last), item in zip(sent, items, strict=True):
        if connection.behind and name in connection.behind:
            _catch_up(connection, name, last, item)
    connection.ok(command.id, **fields)
    for conv in (connection.behind or set()) & cursors.keys() - {each.conv for each in past}:
        connection.reached(conv, cursors[conv], cursors[conv])


async def _look_at(some: Sequence[Standing], cursors: dict[str, int]) -> list[Look]:
    """Each of these, in their order; as long as the longest. Raises `Unavailable`."""
    looks: dict[str, Look] = {}
    errors: list[Unavailable] = []

    async def look(standing: Standing) -> None:
        cursor = cursors.get(standing.conv, 0)
        try:
            payloads = await standing.entries(cursor, ENTRIES_PER_CONVERSATION)
            last = max(cursor, standing.first - 1) + len(payloads)
            unread = await standing.unread(payloads if last == standing.head else None)
        except Unavailable as error:
            errors.append(error)
        else:
            looks[standing.conv] = Look(payloads, *unread)

    async with trio.open_nursery() as nursery:
        for standing in some:
            nursery.start_soon(look, standing)
    if errors:
        raise errors[0]
    return [looks[standing.conv] for standing in some]


def _fill(room: Room, standing: Standing, payloads: list[bytes]) -> list[Raw]:
    room.reserve(CONVERSATION_OVERHEAD_BYTES)
    return room.fill(message_event(standing.conv, p, standing.user) for p in payloads)


def _catch_up(connection: Connection, conv: str, last: int, item: dict[str, Any]) -> None:
    """The connection is live again if the answer reaches the head; if not, the answer says so."""
    actor = connection.node.registry.live(conv)
    if actor is not None and connection.user in actor.members and item["head"] < actor.head:
        # It has moved on while the entries were read, and the client goes by this head.
        item["head"] = actor.head
        item["more"] = True
    connection.reached(conv, last, item["head"])
