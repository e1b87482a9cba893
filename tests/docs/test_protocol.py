"""docs/protocol.md against the code: commands, fields, codes, limits, kinds and bytes."""

from __future__ import annotations

import json
import re
import struct
from itertools import chain
from typing import Any, get_args

import msgpack
import pytest

from broker.wire import limits
from broker.wire.codec import JSON, MSGPACK
from broker.wire.commands import OPENING, SentKind
from broker.wire.errors import CLOSE_STATUS, RECONNECT, RETRYABLE, ByeCode, Code
from broker.wire.framing import LengthFramer
from broker.wire.limits import Limits
from broker.wire.opening import SUBPROTOCOLS
from broker.wire.websocket import WebSocketFramer
from storage.records import MESSAGE_KINDS, Entry
from tests.docs.blocks import STRUCTS, renewed
from tests.docs.markdown import DOCS, block_names, code, codes, fences, table
from tests.docs.shapes import Shapes

TEXT = (DOCS / "protocol.md").read_text()
SHAPES = Shapes(table(TEXT, "shape", "fields"))


def commands_told_of() -> dict[str, str]:
    """The reply of each command that has a row."""
    return {code(row[0]): row[1] for row in table(TEXT, "command", "reply")}


def events_told_of() -> dict[str, str]:
    """The fields of each event."""
    return {code(row[0]): row[1] for row in table(TEXT, "event", "fields")}


def test_every_command_is_there_and_no_other() -> None:
    assert commands_told_of().keys() == STRUCTS.keys()


def test_every_commands_fields_are_there_once() -> None:
    names = [name for block in block_names(TEXT) for name in block.split()[1:]]
    assert sorted(names) == sorted(STRUCTS)


def test_the_generated_tables_are_those_of_the_code() -> None:
    assert renewed(TEXT) == TEXT, "renew with: python -m tests.docs.blocks"


def test_replies_and_events_are_in_the_notation() -> None:
    for cell in chain(commands_told_of().values(), events_told_of().values()):
        SHAPES.parse(cell)


def test_the_opening_commands_are_those_before_the_others() -> None:
    opening = TEXT.partition("## Opening")[2].partition("\n## ")[0]
    told = {code(row[0]) for row in table(opening, "command", "reply")}
    assert told == {kind.__struct_config__.tag for kind in get_args(OPENING)}


def test_codes_and_whether_to_retry() -> None:
    told = {code(row[0]): row[2] for row in table(TEXT, "code", "meaning", "retry")}
    assert told.keys() == set(Code)
    assert {name for name, retry in told.items() if retry.startswith("yes")} == RETRYABLE
    assert told["muted"].startswith("`after_ms`")


def test_byes_and_their_statuses() -> None:
    told = {code(row[0]): row[1:3] for row in table(TEXT, "bye", "WebSocket close")}
    assert told == {
        bye: [str(CLOSE_STATUS[bye]), "yes" if bye in RECONNECT else "no"] for bye in ByeCode
    }


def test_fixed_limits() -> None:
    told = {code(row[0]): row[1] for row in table(TEXT, "limit", "value")}
    there = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert told == {n: "2^53-1" if v == 2**53 - 1 else str(v) for n, v in there.items()}


def test_limits_in_the_text_are_the_defaults() -> None:
    bounds = re.search(r"Frame limit (\d+) KiB, body limit (\d+) KiB, nesting limit (\d+)", TEXT)
    assert bounds is not None
    given = Limits()
    assert [int(each) for each in bounds.groups()] == [
        given.frame_bytes // 1024,
        given.body_bytes // 1024,
        given.nesting,
    ]


def test_kinds() -> None:
    rows = table(TEXT, "kind", "body", "made by")
    told = {kind: set(codes(row[2])) for row in rows for kind in codes(row[0])}
    sent = {kind for kind, by in told.items() if by == {"send"}}
    assert sent == set(get_args(SentKind))
    assert sent | {"call"} == MESSAGE_KINDS
    amending = {"edit", "recall", "pin", "unpin", "react"}
    assert told.keys() - sent == amending | {"system", "call"}
    assert all(told[kind] >= {kind} for kind in amending)


def test_the_fields_of_an_entry() -> None:
    shape = SHAPES.parse(dict(table(TEXT, "shape", "fields"))["*entry*"])
    stored = set(Entry.__struct_encode_fields__)
    assert shape.required.keys() | shape.optional.keys() == (stored - {"edits"}) | {"t", "conv"}


def test_subprotocols() -> None:
    told = {name for row in table(TEXT, "transport") for name in codes(row[0])}
    assert told - {"/ws"} == SUBPROTOCOLS.keys()


def test_what_is_missing_is_missing() -> None:
    named = {
        name
        for row in table(TEXT, "area", "what is missing")
        for name in codes(row[1])
        if re.fullmatch(r"[a-z.]+", name)
    }
    assert named
    assert not named & STRUCTS.keys()


FRAMES = [fence.splitlines() for fence in fences(TEXT, "frame")]


@pytest.mark.parametrize("lines", FRAMES, ids=lambda lines: lines[-1][:24])
def test_the_bytes_of_the_examples(lines: list[str]) -> None:
    where, *hexes, meaning = lines
    data = bytes.fromhex(" ".join(hexes))
    said = meaning.removeprefix("= ")
    if data[0] == 0x88 and where.startswith("WebSocket"):
        assert said == f"{struct.unpack('>H', data[2:4])[0]} {data[4:].decode()}"
        return
    payload = unframed(where, data)
    frame: Any = json.loads(payload) if payload[:1] == b"{" else msgpack.unpackb(payload)
    assert frame == json.loads(said)
    if where.endswith("from the client"):
        # The broker takes it for the same.
        framer = LengthFramer(1024) if where.startswith("TCP") else WebSocketFramer(False, 1024)
        assert framer.feed(data) == [payload]
        assert MSGPACK.decode(payload) == JSON.decode(said.encode())


def unframed(where: str, data: bytes) -> bytes:
    """The payload of the one frame in `data`, taken out by hand."""
    if where.startswith("TCP"):
        assert struct.unpack(">I", data[:4]) == (len(data) - 4,)
        return data[4:]
    masked, size = data[1] & 0x80, data[1] & 0x7F
    assert bool(masked) == where.endswith("from the client")
    if not masked:
        assert len(data) == 2 + size
        return data[2:]
    assert len(data) == 6 + size
    return bytes(byte ^ data[2 + index % 4] for index, byte in enumerate(data[6:]))


def test_there_are_examples_both_ways() -> None:
    assert {lines[0] for lines in FRAMES} == {
        f"{transport}, from the {side}"
        for transport in ("TCP", "WebSocket")
        for side in ("client", "server")
    }
