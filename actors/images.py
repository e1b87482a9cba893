"""A batch of log entries as finished wire bytes, made once per wire variant and shared by members.

An entry is encoded once: its stored payload, a msgpack map with the key last. The wire event `msg`
is spliced from it by bytes alone: a msgpack map is a header with a count and then its pairs, so
pairs can be put before and cut off behind. Members who sent nothing in the batch share
one image; a sender's own sessions get one with their keys. No I/O, no rule of the protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec import Struct, field

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


class Drafts(Struct, gc=False):
    """New entries of a conversation, in order, as parallel lists: there is one row per message.

    `cuts` are the bytes that the key takes at the end of the payload (0: no key), `authors` the
    senders of what a person reads (0 for other entries), `mentions` (index, users) pairs.
    """

    payloads: list[bytes] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    senders: list[int] = field(default_factory=list)
    authors: list[int] = field(default_factory=list)
    mentions: list[tuple[int, list[int]]] | None = None

    def add(
        self, payload: bytes, cut: int, sender: int, author: int, mentions: list[int] | None
    ) -> None:
        if mentions:
            if self.mentions is None:
                self.mentions = []
            self.mentions.append((len(self.payloads), mentions))
        self.payloads.append(payload)
        self.cuts.append(cut)
        self.senders.append(sender)
        self.authors.append(author)

    def part(self, start: int, stop: int) -> Drafts:
        """Some of them, to be fanned out."""
        return Drafts(
            self.payloads[start:stop],
            self.cuts[start:stop],
            self.senders[start:stop],
            self.authors[start:stop],
        )


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


Frames = tuple[list[bytes], list[bytes]]
"""Each entry's frame without its key, and with it."""


class Batch:
    """Consecutive new entries of one conversation, and their images, made when first asked for."""

    __slots__ = ("_drafts", "_frames", "_prefix", "_source", "senders")

    def __init__(self, prefix: bytes, drafts: Drafts, source: Source) -> None:
        self._drafts = drafts
        self._prefix = prefix
        self._source = source
        self._frames: list[Frames | None] = [None] * len(WIRES)
        self.senders = set(drafts.senders)

    def plain(self, wire: Wire) -> Image:
        """For everyone who sent nothing in this batch."""
        return Image(b"".join(self._made(wire)[0]), self._source)

    def keyed(self, wire: Wire, user: int) -> Image:
        """For the sessions of `user`: their own entries carry their keys."""
        plain, keyed = self._made(wire)
        frames = [
            own if sender == user else other
            for other, own, sender in zip(plain, keyed, self._drafts.senders, strict=True)
        ]
        return Image(b"".join(frames), self._source)

    def _made(self, wire: Wire) -> Frames:
        frames = self._frames[wire.index]
        if frames is None:
            frames = self._json(wire) if wire.codec is JSON else self._spliced(wire)
            self._frames[wire.index] = frames
        return frames

    def _spliced(self, wire: Wire) -> Frames:
        plain: list[bytes] = []
        keyed: list[bytes] = []
        prefix = self._prefix
        extra = len(prefix)
        header = wire.header
        first = -1
        head = head_keyed = b""
        for payload, cut in zip(self._drafts.payloads, self._drafts.cuts, strict=True):
            if payload[0] != first:
                first = payload[0]
                fields = (first & 15) + 2
                head_keyed = _MAP_HEADER[fields] + prefix
                head = _MAP_HEADER[fields - 1] + prefix
            size = len(payload) + extra
            frame = header(size) + head_keyed + payload[1:]
            keyed.append(frame)
            plain.append(header(size - cut) + head + payload[1:-cut] if cut else frame)
        return plain, keyed

    def _json(self, wire: Wire) -> Frames:
        name = self._source.name

        def frames(users: list[int]) -> list[bytes]:
            return [
                wire.wrap(wire.codec.encode(message_event(name, payload, user)))
                for payload, user in zip(self._drafts.payloads, users, strict=True)
            ]

        return frames([0] * len(self._drafts.payloads)), frames(self._drafts.senders)


def pair_of_images(
    wire: Wire, prefix: bytes, drafts: Drafts, source: Source
) -> tuple[Image, Image]:
    """A single entry without its key, and with it. For the msgpack wires only."""
    payload = drafts.payloads[0]
    cut = drafts.cuts[0]
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
