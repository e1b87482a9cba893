"""A batch of log entries as finished wire bytes, made once per wire variant and shared by members.

An entry is encoded once: its stored payload, a msgpack map with the key last. The wire event `msg`
is spliced from it by bytes alone: a msgpack map is a header with a count and then its pairs, so
pairs can be put before and cut off behind. Members who sent nothing in the batch share
one image; a sender's own sessions get one with their keys. No I/O, no rule of the protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec import Struct

from actors.wires import WIRES, Wire
from broker.wire.codec import JSON
from storage.records import Entry, decode_entry

if TYPE_CHECKING:
    from actors.outbox import Outbox

_pack = msgspec.msgpack.Encoder().encode
_MAP_HEADER = [bytes((0x80 | n,)) for n in range(16)]
_KEY_FIELD_BYTES = len(_pack("key"))
_SHORT_KEY_BYTES = 31
"""Up to this length a msgpack string has a header of one byte, above (to 255) of two."""

Draft = tuple[bytes, int, int, int, "list[int] | None"]
"""A new entry: payload, key's bytes at its end, sender, author (0: no message), mentions.

A plain tuple, since there is one per message.
"""


class Source(Protocol):
    """Where images come from: a conversation, as an outbox that overflows sees it."""

    name: str
    head: int

    def unsubscribe(self, outbox: Outbox) -> None: ...


class Image(Struct, gc=False):
    """Wire bytes of one conversation, shared by every connection that they go to.

    `source` is the conversation, so that an outbox that overflows can drop its images.
    """

    data: bytes
    source: Source


def key_bytes(key: str) -> int:
    """How many bytes the key's pair takes at the end of a payload."""
    size = len(key) if key.isascii() else len(key.encode())
    if not size:
        return 0
    return _KEY_FIELD_BYTES + size + (1 if size <= _SHORT_KEY_BYTES else 2)


def conversation_prefix(conv: str) -> bytes:
    """The pairs that make an entry's map the `msg` event of a conversation."""
    return _pack("t") + _pack("msg") + _pack("conv") + _pack(conv)


class Batch:
    """Consecutive new entries of one conversation, and their images, made when first asked for."""

    __slots__ = ("_drafts", "_plain", "_prefix", "_source", "senders")

    def __init__(self, prefix: bytes, drafts: list[Draft], source: Source) -> None:
        self._drafts = drafts
        self._prefix = prefix
        self._source = source
        self._plain: list[Image | None] = [None] * len(WIRES)
        self.senders = {draft[2] for draft in drafts if draft[1]}

    def plain(self, wire: Wire) -> Image:
        """For everyone who sent nothing in this batch."""
        image = self._plain[wire.index]
        if image is None:
            image = self._plain[wire.index] = self.keyed(wire, 0)
        return image

    def keyed(self, wire: Wire, user: int) -> Image:
        """For the sessions of `user`: their own entries carry their keys."""
        if wire.codec is JSON:
            return Image(b"".join(self._json(wire, user)), self._source)
        parts: list[bytes] = []
        prefix = self._prefix
        extra = len(prefix)
        header = wire.header
        for payload, cut, sender, _, _ in self._drafts:
            if cut and sender != user:
                parts += (
                    header(len(payload) + extra - cut),
                    _MAP_HEADER[(payload[0] & 15) + 1],
                    prefix,
                    payload[1:-cut],
                )
            else:
                parts += (
                    header(len(payload) + extra),
                    _MAP_HEADER[(payload[0] & 15) + 2],
                    prefix,
                    payload[1:],
                )
        return Image(b"".join(parts), self._source)

    def _json(self, wire: Wire, user: int) -> list[bytes]:
        return [
            wire.wrap(wire.codec.encode(message_event(self._source.name, draft[0], user)))
            for draft in self._drafts
        ]


def pair_of_images(wire: Wire, prefix: bytes, draft: Draft, source: Source) -> tuple[Image, Image]:
    """A single entry without its key, and with it. For the msgpack wires only."""
    payload = draft[0]
    cut = draft[1]
    fields = payload[0] & 15
    pairs = prefix + payload[1:]
    size = len(pairs) + 1
    keyed = Image(wire.header(size) + _MAP_HEADER[fields + 2] + pairs, source)
    if not cut:
        return keyed, keyed
    plain = wire.header(size - cut) + _MAP_HEADER[fields + 1] + pairs[:-cut]
    return Image(plain, source), keyed


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
