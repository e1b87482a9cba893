"""Bytes that clients send become commands, or an error that says what was wrong and where.

The frames are made with `msgpack` and `json`, so that independent encoders check our decoders.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from typing import Any, get_args

import msgpack
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.wire.codec import JSON, MESSAGE_MAX_CHARS, MSGPACK, BadCommand, Codec, body_payload
from broker.wire.commands import AnyCommand, Command, Ping, Send, ToUser
from broker.wire.errors import Code, FrameError, Refusal
from broker.wire.limits import MAX_ID, Limits

Pack = Callable[[object], bytes]


def pack_json(value: object) -> bytes:
    return json.dumps(value).encode()


ENCODINGS = pytest.mark.parametrize(
    ("codec", "pack"), [(MSGPACK, msgpack.packb), (JSON, pack_json)], ids=["msgpack", "json"]
)
SEND = {"t": "send", "id": 7, "key": "k1", "kind": "text", "body": "hi", "to": {"user": 5}}


def refusal_of(codec: Codec, frame: bytes) -> tuple[int | None, Refusal]:
    with pytest.raises(BadCommand) as caught:
        codec.decode(frame)
    return caught.value.id, caught.value.refusal


def outcome(codec: Codec, frame: bytes) -> Command | BadCommand | FrameError:
    """Whatever the bytes, one of these three; any other exception fails the test."""
    try:
        return codec.decode(frame)
    except (BadCommand, FrameError) as error:
        return error


# Good commands


@ENCODINGS
def test_a_command_comes_out_typed_and_unknown_fields_are_ignored(codec: Codec, pack: Pack) -> None:
    command = codec.decode(pack({**SEND, "colour": {"deep": [1, {"x": None}]}}))
    assert command == Send(id=7, key="k1", kind="text", body="hi", to=ToUser(5))


@ENCODINGS
def test_every_unicode_text_survives(codec: Codec, pack: Pack) -> None:
    text = "naïve 汉字 👩‍👩‍👧 \x00 \u202e"
    assert codec.decode(pack({**SEND, "body": text})).body == text  # type: ignore[attr-defined]


def test_the_last_of_two_equal_keys_counts() -> None:
    assert JSON.decode(b'{"t":"ping","id":1,"id":2}') == Ping(id=2)
    assert MSGPACK.decode(b"\x83\xa1t\xa4ping\xa2id\x01\xa2id\x02") == Ping(id=2)


@ENCODINGS
def test_ids_are_whole_up_to_the_last_one(codec: Codec, pack: Pack) -> None:
    assert codec.decode(pack({"t": "ping", "id": MAX_ID})).id == MAX_ID
    assert codec.decode(pack({"t": "ping", "id": 0})).id == 0


# Frames that are no good commands: the connection goes on


@ENCODINGS
@pytest.mark.parametrize(
    ("change", "field", "hint"),
    [
        ({"t": 5}, "t", "expected `str`"),
        ({"t": ...}, "t", "missing"),
        ({"key": ...}, "key", "missing"),
        ({"key": ""}, "key", "length >= 1"),
        ({"kind": "joke"}, "kind", "joke"),
        ({"body": 5}, "body", "got `int`"),
        ({"to": {}}, "to.user", "missing"),
        ({"to": {"user": 0}}, "to.user", ">= 1"),
        ({"to": {"user": MAX_ID + 1}}, "to.user", "<="),
        ({"to": 5}, "to", "got `int`"),
        ({"mentions": [1, 2, 3, "x"]}, "mentions.3", "got `str`"),
        ({"mentions": [1] * 101}, "mentions", "length <= 100"),
    ],
)
def test_the_reply_names_the_field_to_blame(
    codec: Codec, pack: Pack, change: dict[str, Any], field: str, hint: str
) -> None:
    frame = {name: value for name, value in (SEND | change).items() if value is not ...}
    id, refusal = refusal_of(codec, pack(frame))
    assert (id, refusal.code, refusal.field) == (7, Code.BAD_REQUEST, field)
    assert field in refusal.message
    assert hint in refusal.message


@ENCODINGS
def test_values_of_a_map_are_blamed_on_the_map(codec: Codec, pack: Pack) -> None:
    _, refusal = refusal_of(codec, pack({"t": "sync", "id": 1, "cursors": {"d/1/2": -1}}))
    assert refusal.field == "cursors"


@ENCODINGS
def test_an_unknown_command_is_told_apart_from_a_bad_one(codec: Codec, pack: Pack) -> None:
    id, refusal = refusal_of(codec, pack({"t": "fly", "id": 3}))
    assert (id, refusal.code, refusal.field) == (3, Code.UNKNOWN_COMMAND, "t")
    assert "fly" in refusal.message


def test_a_command_that_is_named_twice_is_bad_not_unknown() -> None:
    id, refusal = refusal_of(JSON, b'{"t":"ping","id":1,"t":"typing"}')
    assert (id, refusal.code, refusal.field) == (1, Code.BAD_REQUEST, "t")


@ENCODINGS
@pytest.mark.parametrize("id", [-1, MAX_ID + 1, 2**64 - 1, 1.0, "1", None, True, [1], {"a": 1}])
def test_an_id_that_cannot_be_echoed_is_not(codec: Codec, pack: Pack, id: object) -> None:
    echoed, refusal = refusal_of(codec, pack({"t": "ping", "id": id}))
    assert (echoed, refusal.code, refusal.field) == (None, Code.BAD_REQUEST, "id")


@pytest.mark.parametrize("number", ["1e999", "9" * 5_000, "18446744073709551616"])
def test_json_numbers_beyond_all_types_are_bad_fields(number: str) -> None:
    echoed, refusal = refusal_of(JSON, b'{"t":"ping","id":%s}' % number.encode())
    assert (echoed, refusal.field) == (None, "id")


@pytest.mark.parametrize("key", [5, None, b"x", True, 1.5])
def test_a_map_key_that_is_no_string_is_a_bad_field(key: object) -> None:
    _, refusal = refusal_of(MSGPACK, msgpack.packb(dict(SEND) | {key: 1}))
    assert (refusal.code, refusal.field) == (Code.BAD_REQUEST, None)
    id, refusal = refusal_of(MSGPACK, msgpack.packb({"t": "sync", "id": 1, "cursors": {key: 1}}))
    assert (id, refusal.field) == (1, "cursors")


@ENCODINGS
@pytest.mark.parametrize("where", ["t", "kind"])
def test_what_the_client_sent_is_quoted_but_not_at_length(
    codec: Codec, pack: Pack, where: str
) -> None:
    _, refusal = refusal_of(codec, pack({**SEND, where: "x" * 50_000}))
    assert len(refusal.message) <= MESSAGE_MAX_CHARS


@ENCODINGS
def test_a_quoted_value_cannot_forge_the_field(codec: Codec, pack: Pack) -> None:
    _, refusal = refusal_of(codec, pack({**SEND, "kind": "x' - at `$.body`"}))
    assert refusal.field == "kind"


# Every field of every command


def sample(kind: msgspec.inspect.Type) -> object:
    """The smallest value that a field takes."""
    match kind:
        case msgspec.inspect.IntType():
            return kind.ge or 0
        case msgspec.inspect.StrType():
            return "x" * (kind.min_length or 0)
        case msgspec.inspect.LiteralType():
            return kind.values[0]
        case msgspec.inspect.UnionType():
            return sample(kind.types[0])
        case msgspec.inspect.ListType():
            return [sample(kind.item_type)] * (kind.min_length or 0)
    raise AssertionError(f"a field of a new kind: {kind}")


def schema() -> list[tuple[type[Command], dict[str, Any], str, Any]]:
    """(command, a minimal good frame of it, one of its fields, the field's type) of them all."""
    rows = []
    for command in get_args(AnyCommand):
        info = msgspec.inspect.type_info(command)
        assert isinstance(info, msgspec.inspect.StructType)
        frame = {field.name: sample(field.type) for field in info.fields if field.required}
        frame = {"t": info.tag, **frame, "id": 7}
        types = msgspec.structs.fields(command)
        rows += [(command, frame, field.name, field.type) for field in types]
    return rows


SCHEMA = schema()
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.lists(st.integers(-1, 3) | st.text(max_size=2), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(-1, 3), max_size=2),
)


@pytest.mark.parametrize("command", get_args(AnyCommand), ids=lambda command: command.__name__)
def test_a_minimal_frame_of_every_command_is_good(command: type[Command]) -> None:
    frame = next(frame for c, frame, _, _ in SCHEMA if c is command)
    assert type(MSGPACK.decode(msgpack.packb(frame))) is command
    assert type(JSON.decode(pack_json(frame))) is command


@ENCODINGS
@given(row=st.sampled_from(SCHEMA), value=VALUES)
def test_a_wrong_value_in_any_field_is_blamed_on_that_field(
    codec: Codec, pack: Pack, row: tuple[type[Command], dict[str, Any], str, Any], value: object
) -> None:
    command, frame, field, kind = row
    result = outcome(codec, pack({**frame, field: value}))
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        assert isinstance(result, BadCommand)
        assert result.refusal.code is Code.BAD_REQUEST
        assert (result.refusal.field or "").split(".")[0] == field
        assert result.id == (None if field == "id" else 7)
    else:
        assert type(result) is command


# Bytes that are no frame: the connection ends


@pytest.mark.parametrize(
    ("codec", "frame", "hint"),
    [
        (MSGPACK, b"", "empty"),
        (JSON, b"", "empty"),
        (MSGPACK, b"\x91\x01", "array"),
        (JSON, b"[1]", "array"),
        (MSGPACK, b"\x05", "int"),
        (JSON, b"null", "null"),
        (MSGPACK, b"\xc1", "byte 0"),
        (JSON, b"{nope}", "byte 1"),
        (MSGPACK, msgpack.packb(SEND) + b"\x00", "trailing"),
        (JSON, pack_json(SEND) + b"{}", "trailing"),
        (MSGPACK, msgpack.packb(SEND)[:-1], "truncated"),
        (JSON, pack_json(SEND)[:-1], "truncated"),
        (MSGPACK, pack_json(SEND), "map"),
        (JSON, msgpack.packb(SEND), "byte 0"),
        (MSGPACK, msgpack.packb(SEND).replace(b"hi", b"\xed\xa0"), "UTF-8"),
        (JSON, pack_json(SEND).replace(b"hi", b"\xff\xff"), "UTF-8"),
        (JSON, pack_json({**SEND, "body": "\ud800"}), "surrogate"),
        (JSON, pack_json({**SEND, "body": {"x": math.nan}}), "invalid"),
        (MSGPACK, b"\x82\xa1x" + b"\x91" * 100_000, "nested"),
        (JSON, b'{"t":"ping","x":' + b"[" * 100_000, "nested"),
        (MSGPACK, b"\x82\xa1t\x05\xa1x" + b"\x91" * 100_000, "nested"),
        (MSGPACK, b"\x82\xa1t\x05\xa2id\xa1\xff", "UTF-8"),
        (MSGPACK, b"\xdf\xff\xff\xff\xff", "truncated"),
        (MSGPACK, b"\x82\xa1t\xdd\x7f\xff\xff\xff", "truncated"),
        (MSGPACK, msgpack.packb({**SEND, "t": 5})[:-1], "truncated"),
        (MSGPACK, msgpack.packb({**SEND, "body": {"m": {}}})[:-1] + b"\x81\x80", "truncated"),
    ],
)
def test_what_is_no_frame_ends_the_connection_with_a_reason(
    codec: Codec, frame: bytes, hint: str
) -> None:
    with pytest.raises(FrameError) as caught:
        codec.decode(frame)
    assert caught.value.code is Code.BAD_FRAME
    assert hint in caught.value.message
    assert len(caught.value.message) <= MESSAGE_MAX_CHARS + 50


@pytest.mark.parametrize("codec", [MSGPACK, JSON])
@given(frame=st.binary(max_size=200))
@example(frame=b"\x82\xa1t\xa4ping\xa2id\xd7\xff" + b"\xff" * 8)  # a timestamp out of range
@example(frame=b"\x82\xa1t\xa4ping\x91\x01\x02")  # a list as a key
@example(frame=b"\x82\xa1t\xa4ping\x80\x02")  # a map as a key
def test_arbitrary_bytes_never_surprise(codec: Codec, frame: bytes) -> None:
    outcome(codec, frame)


@st.composite
def broken(draw: st.DrawFn, pack: Pack) -> bytes:
    """A valid command with a few bytes changed, put in or taken out."""
    frame = bytearray(pack({**SEND, "body": {"a": [1, 2.5, {"b": "é"}]}, "mentions": [1, 2]}))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(frame) - 1))
        frame[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return bytes(frame)


@given(frame=broken(msgpack.packb))
def test_broken_msgpack_commands_never_surprise(frame: bytes) -> None:
    outcome(MSGPACK, frame)


@given(frame=broken(pack_json))
def test_broken_json_commands_never_surprise(frame: bytes) -> None:
    outcome(JSON, frame)


# Replies and events


def test_replies_are_read_by_other_codecs() -> None:
    reply = {"t": "ok", "id": 7, "ts": 1763700000123, "body": {"data": b"\x00\xff", "é": None}}
    assert msgpack.unpackb(MSGPACK.encode(reply)) == reply
    read = json.loads(JSON.encode(reply))
    assert base64.b64decode(read["body"]["data"]) == b"\x00\xff"
    assert read["ts"] == 1763700000123


# Bodies

LIMITS = Limits()
BODIES = st.dictionaries(
    st.text(max_size=40),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=300)
        | st.binary(max_size=300),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        ),
        max_leaves=12,
    ),
    max_size=4,
)


@given(body=BODIES | st.text() | st.none())
def test_the_size_of_a_body_is_that_of_its_msgpack(body: Any) -> None:
    assert body_payload(body, Limits(nesting=64)) == len(msgpack.packb(body))


@pytest.mark.parametrize("size", [0, 31, 32, 255, 256, 65_535, 65_536])
@pytest.mark.parametrize("letter", ["a", "é"])
def test_the_size_of_a_text_is_right_at_every_border(size: int, letter: str) -> None:
    text = letter * (size // len(letter.encode()))
    assert body_payload(text, Limits(body_bytes=2**17)) == len(msgpack.packb(text))


def body_refusal(body: Any, limits: Limits = LIMITS) -> Refusal:
    with pytest.raises(Refusal) as caught:
        body_payload(body, limits)
    assert caught.value.field == "body"
    return caught.value


@pytest.mark.parametrize("letter", ["a", "é", "😀"])
def test_a_body_may_fill_its_limit_and_not_a_byte_more(letter: str) -> None:
    text = "x" * (-3 % len(letter.encode())) + letter * 100
    size = len(msgpack.packb(text))
    assert body_payload(text, Limits(body_bytes=size)) == size
    assert body_refusal(text, Limits(body_bytes=size - 1)).code is Code.TOO_LARGE
    assert body_refusal({"a": text}, Limits(body_bytes=size)).code is Code.TOO_LARGE


@pytest.mark.parametrize("wrap", [lambda inner: {"a": inner}, lambda inner: {"a": [inner]}])
def test_a_body_is_nested_as_deep_as_the_limit_says(wrap: Callable[[object], Any]) -> None:
    body: Any = 0
    levels = 0
    while levels < LIMITS.nesting:
        body = wrap(body)
        levels += 1 + isinstance(body["a"], list)
    assert body_payload(body, LIMITS) == len(msgpack.packb(body))
    assert "nested" in body_refusal({"a": body}).message


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ({1: 2}, "key"),
        ([{None: 2}], "key"),
        (math.nan, "finite"),
        ([-math.inf], "finite"),
        (2**64, "64 bit"),
        (-(2**63) - 1, "64 bit"),
    ],
)
def test_what_others_could_not_read_is_refused(value: object, hint: str) -> None:
    refusal = body_refusal({"a": value})
    assert refusal.code is Code.BAD_REQUEST
    assert hint in refusal.message


@pytest.mark.parametrize("value", [msgpack.ExtType(5, b"x"), msgpack.Timestamp(1, 2)])
def test_extension_types_are_refused_wherever_they_hide(value: object) -> None:
    command = MSGPACK.decode(msgpack.packb({**SEND, "body": {"a": [value]}}))
    assert isinstance(command, Send)
    assert "extension" in body_refusal(command.body).message


@given(frame=broken(msgpack.packb))
def test_a_body_that_passes_can_be_sent_in_every_encoding(frame: bytes) -> None:
    command = outcome(MSGPACK, frame)
    if not isinstance(command, Send):
        return
    try:
        size = body_payload(command.body, LIMITS)
    except Refusal:
        return
    assert len(MSGPACK.encode(command.body)) == size
    json.loads(JSON.encode({"body": command.body}))
