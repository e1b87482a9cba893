"""A batch of log entries as finished wire bytes, made once per wire variant and shared by members.

Entries are encoded once, as maps (`storage.records.Entry` without its key). The stored payload and
the wire's `msg` event are spliced from that by bytes alone: a msgpack map is a header with a count
and its pairs, so pairs can be put before and behind. Members who sent nothing in the batch share
one image; a sender's own sessions get one with their keys. No I/O, no rule of the protocol.
"""

from __future__ import annotations

import msgspec

from actors.wires import WIRES, Wire
from broker.wire.codec import JSON
from storage.records import Entry, decode_entry, encode_entry

_pack = msgspec.msgpack.Encoder().encode
_MAP_HEADER = [bytes((0x80 | n,)) for n in range(16)]
_KEY_FIELD = _pack("key")


class Image:
    """Wire bytes of one conversation, shared by every connection that they go to.

    `source` is the conversation, so that an outbox that overflows can drop its images.
    """

    __slots__ = ("data", "source")

    def __init__(self, data: bytes, source: object) -> None:
        self.data = data
        self.source = source


class Draft:
    """One new entry: `core` is its encoded map without the key, `tail` the key's pair or b""."""

    __slots__ = ("core", "sender", "tail")

    def __init__(self, entry: Entry, key: str) -> None:
        self.sender = entry.sender
        self.core = encode_entry(entry)
        self.tail = _KEY_FIELD + _pack(key) if key else b""

    def payload(self) -> bytes:
        """What the store keeps."""
        core = self.core
        if not self.tail:
            return core
        return _MAP_HEADER[(core[0] & 15) + 1] + core[1:] + self.tail


def conversation_prefix(conv: str) -> bytes:
    """The pairs that make an entry's map the `msg` event of a conversation."""
    return _pack("t") + _pack("msg") + _pack("conv") + _pack(conv)


class Batch:
    """Consecutive new entries of one conversation, and their images, made when first asked for."""

    __slots__ = ("_plain", "_prefix", "_source", "conv", "drafts", "senders")

    def __init__(self, conv: str, prefix: bytes, drafts: list[Draft], source: object) -> None:
        self.conv = conv
        self.drafts = drafts
        self.senders = {draft.sender for draft in drafts if draft.tail}
        self._prefix = prefix
        self._source = source
        self._plain: list[Image | None] = [None] * len(WIRES)

    def plain(self, wire: Wire) -> Image:
        """For everyone who sent nothing in this batch."""
        image = self._plain[wire.index]
        if image is None:
            image = self._plain[wire.index] = self._image(wire, 0)
        return image

    def keyed(self, wire: Wire, user: int) -> Image:
        """For the sessions of `user`: their own entries carry their keys."""
        return self._image(wire, user)

    def _image(self, wire: Wire, user: int) -> Image:
        if wire.codec is JSON:
            return Image(b"".join(self._json(wire, user)), self._source)
        parts: list[bytes] = []
        prefix = self._prefix
        extra = len(prefix)
        header = wire.header
        for draft in self.drafts:
            core = draft.core
            if draft.sender == user and draft.tail:
                parts += (
                    header(len(core) + extra + len(draft.tail)),
                    _MAP_HEADER[(core[0] & 15) + 3],
                    prefix,
                    core[1:],
                    draft.tail,
                )
            else:
                parts += (
                    header(len(core) + extra),
                    _MAP_HEADER[(core[0] & 15) + 2],
                    prefix,
                    core[1:],
                )
        return Image(b"".join(parts), self._source)

    def _json(self, wire: Wire, user: int) -> list[bytes]:
        return [
            wire.wrap(wire.codec.encode(message_event(self.conv, draft.payload(), user)))
            for draft in self.drafts
        ]


def message_event(conv: str, payload: bytes, user: int) -> dict[str, object]:
    """A stored payload as the `msg` event that `user` may see."""
    return {"t": "msg", "conv": conv, **public_entry(decode_entry(payload), user)}


def public_entry(entry: Entry, user: int) -> dict[str, object]:
    """An entry's fields as `user` may see them: without `edits`, the key only if it is theirs."""
    fields: dict[str, object] = msgspec.to_builtins(entry, builtin_types=(bytes,))
    fields.pop("edits", None)
    if entry.sender != user:
        fields.pop("key", None)
    return fields
