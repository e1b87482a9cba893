"""Sending, and changing what was sent: the rules.

Each command has a handler, called when its frame is read (it checks what needs no state and posts
to the conversation), and a rule, called by the conversation in its turn. Neither does I/O.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from actors.ledger import NeedEntries
from actors.memory import digest
from broker.commands.conversations import conversation, direct_name, is_direct, member_of
from broker.wire.codec import JSON, body_payload
from broker.wire.commands import Amendment, Edit, Pin, React, Recall, Send, Unpin
from broker.wire.errors import Code, Refusal
from broker.wire.limits import KEY_MAX_BYTES
from broker.wire.replies import Sent
from storage.records import MESSAGE_KINDS, Entry

if TYPE_CHECKING:
    from actors.connection import Connection
    from actors.conversation import Conversation

NAMED_KINDS = frozenset({"text", "emoji", "sticker"})
MEDIA_KINDS = frozenset({"image", "audio", "video", "file"})
SHORT_TEXT_CHARS = 256
"""Text up to this length is within any body limit and needs no measuring."""
PEERS_REMEMBERED = 64
"""Direct conversations that a connection finds without making their names."""
EDITS_MAX = 100
"""Edits of one message: a recall must be able to empty them all."""


# send


def send(connection: Connection, command: Send) -> None:
    """A new message."""
    if not command.key.isascii():
        check_key(command.key)
    body = command.body
    if command.kind != "text" or type(body) is not str or len(body) > SHORT_TEXT_CHARS:
        command.body = checked_body(connection, command.kind, body)
    node = connection.node
    if node.options.sends_per_second:
        check_rate(connection)
    to = command.to
    name = command.conv
    if to is not None:
        if name is not None:
            raise Refusal(Code.BAD_REQUEST, "either `conv` or `to`, not both", field="to")
        conv = _conversation_with(connection, to.user)
    elif name is not None:
        conv = conversation(connection, name)
    else:
        raise Refusal(Code.BAD_REQUEST, "`conv` or `to` is missing", field="conv")
    if not conv.post(connection, command, _send):
        connection.wait_for(conv, command, _send)


def _conversation_with(connection: Connection, user: int) -> Conversation:
    """The direct conversation with a user; those in use are remembered, not named each time."""
    peers = connection.peers
    if peers is None:
        peers = connection.peers = {}
    conv = peers.get(user)
    if conv is None or conv.ended:
        if len(peers) >= PEERS_REMEMBERED:
            peers.clear()
        conv = peers[user] = conversation(connection, direct_name(connection.user, user))
    return conv


def _send(conv: Conversation, connection: Connection, command: Send) -> None:
    user = connection.user
    if user not in conv.members and not _is_repeated(conv, user, command):
        member_of(conv, user)
    if command.reply_to is None and not command.mentions:
        seq, ts = conv.message(user, command.key, command.kind, command.body)
    else:
        seq, ts = _send_with_options(conv, user, command)
    if conv.group is None and conv.members:
        low, high = conv.members
        online = conv.node.registry.seems_online(high if user == low else low)
        reply = Sent(command.id, conv.name, seq, ts, online)
    else:
        reply = Sent(command.id, conv.name, seq, ts)
    conv.answer(connection, command.id, reply)


def _is_repeated(conv: Conversation, user: int, command: Send) -> bool:
    """Whether a former member asks again for what they sent while they were one."""
    what = digest(command.kind, command.body, 0, command.reply_to or 0, command.mentions)
    return conv.keys.find(user, command.key, what) is not None


def _send_with_options(conv: Conversation, user: int, command: Send) -> tuple[int, int]:
    reply_to = command.reply_to or 0
    what = digest(command.kind, command.body, 0, reply_to, command.mentions)
    known = conv.keys.find(user, command.key, what)
    if known is not None:
        return known
    if reply_to > conv.head:
        raise Refusal(Code.BAD_REQUEST, "there is no such entry to reply to", field="reply_to")
    entry = conv.append(
        user,
        command.kind,
        command.body,
        key=command.key,
        reply_to=reply_to,
        mentions=command.mentions,
        what=what,
    )
    return entry.seq, entry.ts


# edit, recall, pin, unpin, react


def amend(connection: Connection, command: Amendment) -> None:
    """Any command that refers to an earlier entry."""
    check_key(command.key)
    rule = _RULES[type(command)]
    if type(command) is Edit:
        body_payload(command.body, connection.node.limits)
    connection.post(conversation(connection, command.conv), command, rule)


def _edit(conv: Conversation, connection: Connection, command: Edit) -> None:
    if _repeated(conv, connection, command, "edit", command.body):
        return
    member_of(conv, connection.user)
    target = _target(conv, command)
    if target.sender != connection.user:
        raise Refusal(Code.FORBIDDEN, "only its sender may edit a message", field="ref")
    _check_age(conv, target, conv.node.options.edit_window_ms, "edited")
    edits = target.edits or []
    if len(edits) >= EDITS_MAX:
        raise Refusal(Code.FORBIDDEN, f"a message can be edited {EDITS_MAX} times", field="ref")
    body = checked_body(connection, target.kind, command.body)
    entry = _append(conv, connection, command, "edit", body)
    target.body = body
    target.edited_ts = entry.ts
    target.edits = [*edits, entry.seq]
    conv.revise(target)


def _recall(conv: Conversation, connection: Connection, command: Recall) -> None:
    if _repeated(conv, connection, command, "recall", None):
        return
    member = member_of(conv, connection.user)
    target = _target(conv, command)
    moderates = not is_direct(conv) and member.role in ("owner", "admin")
    if not moderates:
        if target.sender != connection.user:
            raise Refusal(Code.FORBIDDEN, "only its sender may recall a message", field="ref")
        _check_age(conv, target, conv.node.options.recall_window_ms, "recalled")
    emptied = _entries(conv, target.edits or [])
    _append(conv, connection, command, "recall", None)
    for entry in (target, *emptied):
        entry.body = None
        entry.mentions = None
        entry.recalled = True
        conv.revise(entry)
    conv.after(lambda: conv.recent.forget_author(target.seq))


def _pin(conv: Conversation, connection: Connection, command: Pin | Unpin) -> None:
    kind = "pin" if type(command) is Pin else "unpin"
    if _repeated(conv, connection, command, kind, None):
        return
    member = member_of(conv, connection.user)
    if not is_direct(conv) and member.role == "member":
        raise Refusal(Code.FORBIDDEN, "only the owner and admins may pin")
    _target(conv, command)
    _append(conv, connection, command, kind, None)


def _react(conv: Conversation, connection: Connection, command: React) -> None:
    body = {"emoji": command.emoji, "on": command.on}
    if _repeated(conv, connection, command, "react", body):
        return
    member_of(conv, connection.user)
    _target(conv, command)
    _append(conv, connection, command, "react", body)


_RULES: dict[type[Amendment], Any] = {
    Edit: _edit,
    Recall: _recall,
    Pin: _pin,
    Unpin: _pin,
    React: _react,
}


def _repeated(
    conv: Conversation, connection: Connection, command: Amendment, kind: str, body: Any
) -> bool:
    """Answer a command whose key was seen before as it was answered then."""
    what = digest(kind, body, command.ref, 0, None)
    known = conv.keys.find(connection.user, command.key, what)
    if known is None:
        return False
    conv.answer(connection, command.id, Sent(command.id, conv.name, known[0], known[1]))
    return True


def _append(
    conv: Conversation, connection: Connection, command: Amendment, kind: str, body: Any
) -> Entry:
    entry = conv.append(
        connection.user,
        kind,
        body,
        key=command.key,
        ref=command.ref,
        what=digest(kind, body, command.ref, 0, None),
    )
    conv.answer(connection, command.id, Sent(command.id, conv.name, entry.seq, entry.ts))
    return entry


def _target(conv: Conversation, command: Amendment) -> Entry:
    """The message that is referred to, in its present state."""
    if command.ref > conv.head:
        raise Refusal(Code.NOT_FOUND, "there is no such entry", field="ref")
    target = conv.entry(command.ref)
    if target.kind not in MESSAGE_KINDS or target.kind == "call":
        raise Refusal(Code.BAD_REQUEST, f"`{target.kind}` entries are no messages", field="ref")
    if target.recalled:
        raise Refusal(Code.CONFLICT, "the message was recalled", field="ref")
    return target


def _entries(conv: Conversation, seqs: list[int]) -> list[Entry]:
    entries: list[Entry] = []
    missing: list[int] = []
    for seq in seqs:
        try:
            entries.append(conv.entry(seq))
        except NeedEntries:
            missing.append(seq)
    if missing:
        raise NeedEntries(missing)
    return entries


def _check_age(conv: Conversation, target: Entry, window_ms: int, what: str) -> None:
    if conv.node.now_ms() - target.ts > window_ms:
        raise Refusal(
            Code.FORBIDDEN, f"it can be {what} only for {window_ms // 1000} s", field="ref"
        )


# What is sent


def check_rate(connection: Connection) -> None:
    wait_ms = connection.session.wait_ms()  # type: ignore[union-attr]
    if wait_ms:
        raise Refusal(Code.RATE_LIMITED, "too many messages at once", after_ms=wait_ms)


def check_key(key: str) -> None:
    """The length in bytes; the struct has checked it in characters."""
    if not key.isascii() and len(key.encode()) > KEY_MAX_BYTES:
        raise Refusal(
            Code.BAD_REQUEST, f"a key has at most {KEY_MAX_BYTES} bytes of UTF-8", field="key"
        )


def checked_body(connection: Connection, kind: str, body: Any) -> Any:
    """The body as it is stored, if it fits its kind and the limits."""
    body_payload(body, connection.node.limits)
    if kind in NAMED_KINDS:
        if type(body) is not str:
            raise Refusal(Code.BAD_REQUEST, f"the body of `{kind}` is a string", field="body")
        return body
    if type(body) is not dict:
        raise Refusal(Code.BAD_REQUEST, f"the body of `{kind}` is a map", field="body")
    if kind in MEDIA_KINDS:
        return _media(connection, body)
    return body


def _media(connection: Connection, body: dict[str, Any]) -> dict[str, Any]:
    if "file" in body:
        raise Refusal(Code.NOT_FOUND, "there is no such file", field="body.file")
    for name in ("name", "mime"):
        if type(body.get(name)) is not str:
            raise Refusal(Code.BAD_REQUEST, f"`body.{name}` is a string", field=f"body.{name}")
    data = body.get("data")
    if connection.wire.codec is JSON and type(data) is str:
        try:
            data = base64.b64decode(data, validate=True)
        except binascii.Error:
            raise Refusal(Code.BAD_REQUEST, "not base64", field="body.data") from None
    if type(data) is not bytes:
        raise Refusal(Code.BAD_REQUEST, "`body.data` is binary", field="body.data")
    return {**body, "data": data}
