"""What a conversation remembers of its newest entries: keys, authors, payloads.

All of it can be rebuilt from the store, and all of it is bounded. Never does I/O.
"""

from __future__ import annotations

from base64 import b64encode
from collections import OrderedDict
from typing import Any

import msgspec

from actors.images import Drafts, key_bytes
from broker.wire.errors import Code, Refusal
from broker.wire.limits import KEY_WINDOW_ENTRIES, UNREAD_WINDOW_ENTRIES
from storage.records import MESSAGE_KINDS, Entry, decode_entry

_pack = msgspec.msgpack.Encoder().encode

RECENT_ENTRIES = 256
"""Payloads kept in memory, so that reads of a conversation's end need no store."""
RECENT_MAX_BYTES = 512 * 1024
BORROWED_ENTRIES = 256
"""Older entries that were looked up or revised lately; more than any one command needs."""

Known = tuple[int, int, int]
"""seq, ts, digest of what was sent; digest 0 matches anything (the entry was changed since)."""


def digest(kind: str, body: Any, ref: int, reply_to: int, mentions: list[int] | None) -> int:
    """Tells whether a key is used again with another body. Good in this process only."""
    if kind == "text" and not (ref or reply_to or mentions) and type(body) is str:
        return hash(body) or 1
    if kind == "edit" and type(body) is dict and type(body.get("data")) is bytes:
        # As JSON writes it: what an edit's body means is known only with its message.
        body = {**body, "data": b64encode(body["data"]).decode()}
    if type(body) is not str and body is not None:
        body = _pack(body)
    return hash((kind, body, ref, reply_to, tuple(mentions) if mentions else None)) or 1


class KeyWindow:
    """The keys of at least the newest `KEY_WINDOW_ENTRIES` entries, in two generations.

    A key is held as `hash((sender, key))`, a third of its memory. Hashes of strings are secret to
    the process, so nobody can aim at a collision; by chance one is met in 10^15 sends, and then
    answered as a key that was used for something else.
    """

    __slots__ = ("old", "young")

    def __init__(self) -> None:
        self.young: dict[int, Known] = {}
        self.old: dict[int, Known] = {}

    def add(self, name: int, known: Known) -> None:
        """`name` is the hash of (sender, key)."""
        self.young[name] = known
        if len(self.young) >= KEY_WINDOW_ENTRIES:
            self.old = self.young
            self.young = {}

    def find(self, sender: int, key: str, what: int) -> tuple[int, int] | None:
        """seq and ts of the entry that this key made, if any. Raises as `same` does."""
        name = hash((sender, key))
        known = self.young.get(name) or self.old.get(name)
        return None if known is None else self.same(known, what)

    def same(self, known: Known, what: int) -> tuple[int, int]:
        """seq and ts of a known entry. Refuses a key that was used for something else."""
        seq, ts, before = known
        if before not in (0, what):
            raise Refusal(
                Code.CONFLICT,
                f"this key was used for entry {seq}, with another body",
                field="key",
            )
        return seq, ts

    def recall(self, entry: Entry) -> None:
        """Take up a stored entry's key."""
        if entry.key:
            changed = entry.edited_ts or entry.recalled
            what = (
                0
                if changed
                else digest(entry.kind, entry.body, entry.ref, entry.reply_to, entry.mentions)
            )
            self.add(hash((entry.sender, entry.key)), (entry.seq, entry.ts, what))


class Recent:
    """The newest entries: payloads of some, authors and mentions of more."""

    __slots__ = ("_authors", "_borrowed", "_bytes", "_head", "_mentions", "_payloads")

    def __init__(self, head: int) -> None:
        self._head = head
        self._payloads: list[bytes] = []
        self._bytes = 0
        self._authors: list[int] = []
        self._mentions: list[tuple[int, list[int]]] = []
        self._borrowed: OrderedDict[int, bytes] = OrderedDict()

    @property
    def first(self) -> int:
        """The oldest seq whose payload is held; head + 1 if none is."""
        return self._head - len(self._payloads) + 1

    def extend(self, drafts: Drafts) -> None:
        """The next entries, all of a turn."""
        payloads = drafts.payloads
        if drafts.mentions:
            first = self._head + 1
            self._mentions += [(first + index, users) for index, users in drafts.mentions]
        self._head += len(payloads)
        self._payloads += payloads
        self._authors += drafts.authors
        self._bytes += sum(map(len, payloads))
        if len(self._payloads) > 2 * RECENT_ENTRIES or self._bytes > 2 * RECENT_MAX_BYTES:
            self._trim()

    def _trim(self) -> None:
        keep = self._payloads[-RECENT_ENTRIES:]
        size = sum(map(len, keep))
        start = 0
        while size > RECENT_MAX_BYTES:
            size -= len(keep[start])
            start += 1
        self._payloads = keep[start:]
        self._bytes = size
        if len(self._authors) > 2 * UNREAD_WINDOW_ENTRIES:
            del self._authors[:-UNREAD_WINDOW_ENTRIES]
        oldest = self._head - UNREAD_WINDOW_ENTRIES
        while self._mentions and self._mentions[0][0] <= oldest:
            del self._mentions[0]

    def between(self, after: int, last: int) -> list[bytes] | None:
        """Payloads with after < seq <= last, or None if they are not all held."""
        first = self.first
        if after + 1 < first:
            return None
        return self._payloads[after + 1 - first : last + 1 - first]

    def payload(self, seq: int) -> bytes | None:
        """One payload, if it is held here."""
        first = self.first
        if first <= seq <= self._head:
            return self._payloads[seq - first]
        return self._borrowed.get(seq)

    def borrow(self, seq: int, payload: bytes) -> None:
        """Hold an older entry for a while."""
        self._borrowed[seq] = payload
        self._borrowed.move_to_end(seq)
        while len(self._borrowed) > BORROWED_ENTRIES:
            self._borrowed.popitem(last=False)

    def revise(self, seq: int, payload: bytes) -> None:
        """An entry's present state has changed."""
        first = self.first
        if first <= seq <= self._head:
            self._payloads[seq - first] = payload
        else:
            self.borrow(seq, payload)

    def forget_author(self, seq: int) -> None:
        """The entry is no longer a message to be read (recalled)."""
        index = seq - self._head - 1
        if -len(self._authors) <= index < 0:
            self._authors[index] = 0

    def unread(self, user: int, read: int) -> tuple[int, int]:
        """Messages by others after `read` and mentions of the user there, within the window."""
        count = min(self._head - read, UNREAD_WINDOW_ENTRIES)
        if count <= 0:
            return 0, 0
        unread = sum(1 for author in self._authors[-count:] if author and author != user)
        mentions = sum(1 for seq, users in self._mentions if seq > read and user in users)
        return unread, mentions


def draft_again(drafts: Drafts, entry: Entry, payload: bytes) -> None:
    """A stored entry, as one that is to be told."""
    drafts.add(payload, key_bytes(entry.key), entry.sender, author_of(entry), entry.mentions)


def author_of(entry: Entry) -> int:
    """The sender of what a person reads, else 0."""
    return entry.sender if entry.kind in MESSAGE_KINDS and not entry.recalled else 0


def count_unread(payloads: list[bytes], user: int) -> tuple[int, int]:
    """`Recent.unread`, for a conversation that is not active: over payloads after the mark."""
    unread = mentions = 0
    for payload in payloads:
        entry = decode_entry(payload)
        author = author_of(entry)
        if author and author != user:
            unread += 1
        if entry.mentions and user in entry.mentions:
            mentions += 1
    return unread, mentions
