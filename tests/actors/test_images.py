"""Spliced bytes against an independent encoder: what members get is what was stored, key apart."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.images import (
    Batch,
    Drafts,
    conversation_prefix,
    key_bytes,
    message_event,
    pair_of_images,
)
from actors.wires import TCP_MSGPACK, WIRES, WS_JSON, WS_MSGPACK, Wire
from storage.records import Entry, PlainEntry, decode_entry, encode_entry

USERS = (1, 2, 2**53 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=64).filter(
    lambda key: len(key.encode()) <= 64
)
BODIES = TEXT | st.none() | st.dictionaries(TEXT, TEXT | st.integers(0, 9) | st.none(), max_size=3)


class Somewhere:
    """A conversation, as images know it."""

    name = "g/12"
    head = 0

    def unsubscribe(self, outbox: object) -> None:
        raise AssertionError("nobody overflows here")


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    count = draw(st.integers(1, 5))
    return [
        Entry(
            seq=seq,
            sender=draw(st.sampled_from(USERS)),
            ts=draw(st.integers(1, 2**42)),
            kind=draw(st.sampled_from(["text", "custom", "edit", "system"])),
            body=draw(BODIES),
            ref=draw(st.integers(0, 300)),
            mentions=draw(st.none() | st.lists(st.sampled_from(USERS), min_size=1, max_size=2)),
            key=draw(KEYS),
        )
        for seq in range(1, count + 1)
    ]


def drafted(entries: list[Entry]) -> Drafts:
    drafts = Drafts()
    for entry in entries:
        payload = encode_entry(entry)
        drafts.add(payload, key_bytes(entry.key), entry.sender, entry.sender, entry.mentions)
    return drafts


def expected(entry: Entry, user: int) -> dict[str, Any]:
    """The `msg` event, written down once more, field by field."""
    event: dict[str, Any] = {"t": "msg", "conv": "g/12", "seq": entry.seq, "from": entry.sender}
    event |= {"ts": entry.ts, "kind": entry.kind}
    if entry.body is not None:
        event["body"] = entry.body
    if entry.ref:
        event["ref"] = entry.ref
    if entry.mentions:
        event["mentions"] = entry.mentions
    if entry.key and entry.sender == user:
        event["key"] = entry.key
    return event


def events(wire: Wire, data: bytes) -> list[Any]:
    """The frames of a wire, taken apart by hand."""
    found = []
    while data:
        if wire is TCP_MSGPACK:
            start, size = 4, int.from_bytes(data[:4], "big")
        else:
            assert data[0] == (0x81 if wire is WS_JSON else 0x82)
            start, size = 2, data[1]
            if size == 126:
                start, size = 4, int.from_bytes(data[2:4], "big")
        frame, data = data[start : start + size], data[start + size :]
        found.append(json.loads(frame) if wire is WS_JSON else msgpack.unpackb(frame))
    return found


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
@given(entries=logs())
def test_a_batch_is_its_entries(wire: Wire, entries: list[Entry]) -> None:
    batch = Batch(conversation_prefix("g/12"), drafted(entries), Somewhere())

    plain = events(wire, batch.plain(wire).data)

    assert plain == [expected(entry, user=0) for entry in entries]
    for user in batch.senders:
        keyed = events(wire, batch.keyed(wire, user).data)
        assert keyed == [expected(entry, user) for entry in entries]


@pytest.mark.parametrize("wire", [TCP_MSGPACK, WS_MSGPACK], ids=lambda wire: wire.name)
@given(entries=logs())
def test_a_single_entry_makes_the_same_images(wire: Wire, entries: list[Entry]) -> None:
    drafts = drafted(entries[:1])
    prefix = conversation_prefix("g/12")
    batch = Batch(prefix, drafts, Somewhere())

    plain, keyed = pair_of_images(wire, prefix, drafts, Somewhere())

    assert plain.data == batch.plain(wire).data
    assert keyed.data == batch.keyed(wire, entries[0].sender).data


@given(entries=logs())
def test_what_is_stored_is_the_entry(entries: list[Entry]) -> None:
    for entry in entries:
        payload = encode_entry(entry)
        assert decode_entry(payload) == entry
        for user in USERS:
            assert message_event("g/12", payload, user) == expected(entry, user)


@given(seq=st.integers(1, 2**40), sender=st.sampled_from(USERS), body=TEXT, key=KEYS)
def test_the_short_way_to_a_payload_is_the_long_one(
    seq: int, sender: int, body: str, key: str
) -> None:
    short = encode_entry(PlainEntry(seq, sender, 5, "text", body, key or "k"))
    entry = Entry(seq=seq, sender=sender, ts=5, kind="text", body=body, key=key or "k")

    assert short == encode_entry(entry)


def test_what_a_sender_keeps_to_oneself_is_never_sent() -> None:
    entry = Entry(seq=1, sender=1, ts=1, kind="text", body="b", edits=[2, 3], key="k")
    assert "edits" not in message_event("g/12", encode_entry(entry), 1)
