"""Reading a conversation: history, single messages, marks, typing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from actors.images import message_event
from broker.commands.conversations import conversation, is_direct, member_of
from broker.wire.commands import Delivered, History, Message, Read, Typing
from broker.wire.errors import Code, Refusal

if TYPE_CHECKING:
    from actors.connection import Connection
    from actors.conversation import Conversation

ENTRY_OVERHEAD_BYTES = 256
"""What an entry may grow by from its payload to its place in a reply, base64 not counted."""
ANSWERS_BEFORE_PAGES_MAX = 16
"""A page takes long to make, and a turn waits for nobody: when it has this much to answer, further
pages are made beside it, one a connection."""


# history


def history(connection: Connection, command: History) -> None:
    if command.before is not None and command.after is not None:
        raise Refusal(Code.BAD_REQUEST, "either `before` or `after`, not both", field="before")
    connection.post(conversation(connection, command.conv), command, _history)


def first_visible(conv: Conversation, user: int) -> int:
    """The oldest seq that a member may read."""
    member = member_of(conv, user)
    if conv.group is not None and conv.group.history == "joined":
        return max(member.since, 1)
    return 1


def _range(conv: Conversation, user: int, command: History) -> tuple[int, int]:
    """The seqs that are asked for, first and last: logs have no holes."""
    floor = first_visible(conv, user)
    if command.after is not None:
        first = max(command.after + 1, floor)
        return first, min(first + command.limit - 1, conv.head)
    last = conv.head if command.before is None else min(command.before - 1, conv.head)
    return max(last - command.limit + 1, floor), last


def _history(conv: Conversation, connection: Connection, command: History) -> None:
    first, last = _range(conv, connection.user, command)
    payloads = conv.recent.between(first - 1, last) if first <= last else []
    if payloads is None or (payloads and conv.answers_waiting >= ANSWERS_BEFORE_PAGES_MAX):
        conv.query(connection, command, _stored_history)
    else:
        reply = partial(_reply, conv, connection, command, first, payloads, conv.head)
        conv.answer_by(connection, command.id, reply)


async def _stored_history(conv: Conversation, connection: Connection, command: History) -> None:
    first, last = _range(conv, connection.user, command)
    limit = last - first + 1
    payloads = await conv.node.store.read(conv.name, after=first - 1, limit=limit)
    member_of(conv, connection.user)  # else they would see what came after they had to go
    if command.after is not None and len(payloads) == limit < command.limit:
        # What came meanwhile: else a busy conversation could never be caught up with.
        newer = conv.recent.between(last, conv.head) or []
        payloads += newer[: command.limit - limit]
    _reply(conv, connection, command, first, payloads, conv.head)


def _reply(
    conv: Conversation,
    connection: Connection,
    command: History,
    first: int,
    payloads: list[bytes],
    head: int,
) -> None:
    start, stop = fitting(payloads, connection.node.limits.frame_bytes, command.after is None)
    entries = [
        message_event(conv.name, payload, connection.user) for payload in payloads[start:stop]
    ]
    if command.after is None:
        connection.ok(command.id, entries=entries, head=head)
    else:
        seq = max(first + stop - 1, command.after)
        connection.page(command.id, conv.name, seq, head, entries=entries)


def fitting(payloads: list[bytes], frame_bytes: int, newest: bool) -> tuple[int, int]:
    """The slice of payloads that fits one frame: the newest, or the oldest; at least one."""
    room = frame_bytes
    count = 0
    for payload in reversed(payloads) if newest else payloads:
        room -= len(payload) * 4 // 3 + ENTRY_OVERHEAD_BYTES
        if room < 0 and count:
            break
        count += 1
    return (len(payloads) - count, len(payloads)) if newest else (0, count)


# message


def message(connection: Connection, command: Message) -> None:
    connection.post(conversation(connection, command.conv), command, _message)


def _message(conv: Conversation, connection: Connection, command: Message) -> None:
    if not first_visible(conv, connection.user) <= command.seq <= conv.head:
        raise Refusal(Code.NOT_FOUND, "there is no such entry", field="seq")
    conv.entry(command.seq)
    conv.answer_by(connection, command.id, partial(_reply_message, conv, connection, command))


def _reply_message(conv: Conversation, connection: Connection, command: Message) -> None:
    payload = conv.recent.payload(command.seq)
    assert payload is not None
    event = message_event(conv.name, payload, connection.user)
    fields: dict[str, object] = {"entry": event}
    if len(conv.members) <= conv.node.options.receipts_max_members:
        fields["readers"] = [
            mark.user
            for mark in conv.marks.values()
            if mark.read >= command.seq and mark.user != event["from"] and mark.user in conv.members
        ]
    connection.ok(command.id, **fields)


# read, delivered, typing


def read(connection: Connection, command: Read | Delivered) -> None:
    connection.post(conversation(connection, command.conv), command, _mark)


def _mark(conv: Conversation, connection: Connection, command: Read | Delivered) -> None:
    user = connection.user
    member = member_of(conv, user)
    reads = type(command) is Read
    moved = conv.move_mark(
        user, read=command.seq if reads else 0, delivered=0 if reads else command.seq
    )
    mark = conv.marks[user]
    unread, _ = conv.recent.unread(user, max(mark.read, member.since))
    conv.answer(connection, command.id, {"t": "ok", "id": command.id, "unread": unread})
    if moved:
        event = {
            "t": "read" if reads else "delivered",
            "conv": conv.name,
            "user": user,
            "seq": mark.read if reads else mark.delivered,
        }
        small = is_direct(conv) or len(conv.members) <= conv.node.options.receipts_max_members
        users = None if small else [user]
        conv.after(partial(conv.tell, event, besides=connection, users=users))


def typing(connection: Connection, command: Typing) -> None:
    connection.post(conversation(connection, command.conv), command, _typing)


def _typing(conv: Conversation, connection: Connection, command: Typing) -> None:
    member_of(conv, connection.user)
    conv.answer(connection, command.id, {"t": "ok", "id": command.id})
    event = {"t": "typing", "conv": conv.name, "user": connection.user, "on": command.on}
    conv.after(partial(conv.tell_ephemeral, event, besides=connection))
