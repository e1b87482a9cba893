"""Frames as typed commands, replies and events as frames: msgpack and JSON.

A good frame costs one call into C. What is wrong with a bad one is found out afterwards, by a
second and lenient look. No I/O; no rule that needs state. What an ignored field holds is skipped,
not read: only the bytes that make the frame's structure are checked there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any, Protocol, get_args

import msgspec
from msgspec import DecodeError, Struct, ValidationError

from broker.wire.commands import AnyCommand, Body, Command
from broker.wire.errors import Code, FrameError, Refusal
from broker.wire.limits import MAX_ID, Limits

MESSAGE_MAX_CHARS = 200
"""An error message may quote what the client sent; more of it helps nobody."""
NAME_QUOTED_MAX_CHARS = 40

INT_MIN = -(2**63)
INT_MAX = 2**64 - 1
"""Integers that msgpack can carry."""

COMMAND_NAMES: frozenset[str] = frozenset(
    command.__struct_config__.tag for command in get_args(AnyCommand)
)


UNDECODABLE = (DecodeError, UnicodeDecodeError, RecursionError)
"""What the decoders raise; `ValidationError` is a `DecodeError`."""


class BadCommand(Exception):
    """A frame, but no good command: it gets an `error` reply and the connection goes on.

    `id` is the client's own number where the frame has a usable one.
    """

    def __init__(self, id: int | None, refusal: Refusal) -> None:
        super().__init__(id, refusal)
        self.id = id
        self.refusal = refusal


class Codec(Protocol):
    """One encoding of frames."""

    @property
    def name(self) -> str:
        """As in `hello`'s field `encoding`."""

    def decode(self, frame: bytes, /) -> Command:
        """The command in a frame.

        Raises `FrameError` where it is no frame (not in the encoding, bytes behind it, no map), and
        `BadCommand` where it is one, but no known command or one with a missing or wrong field.
        """

    @property
    def decode_good(self) -> Callable[[bytes], Command]:
        """`decode` as one call into C: what is wrong it says only by raising one of `UNDECODABLE`,
        upon which `decode` tells."""

    def encode(self, obj: object, /) -> bytes:
        """A reply or event (struct or dict) as a frame; JSON carries binary values as base64."""


class _Envelope(Struct, gc=False):
    """All that an error reply needs to know of a frame; other fields are skipped unread."""

    t: Any = None
    id: Any = None


class _MsgspecCodec:
    __slots__ = ("_open", "decode_good", "encode", "name")

    def __init__(
        self,
        name: str,
        encode: Callable[[object], bytes],
        decode: Callable[[bytes], Command],
        open_envelope: Callable[[bytes], _Envelope],
    ) -> None:
        self.name = name
        self.encode = encode
        self.decode_good = decode
        self._open = open_envelope

    def decode(self, frame: bytes, /) -> Command:
        try:
            return self.decode_good(frame)
        except ValidationError as error:
            fault = str(error)
        except (DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._no_frame(frame, error) from None
        raise self._diagnosis(frame, fault)

    def _no_frame(self, frame: bytes, error: Exception) -> FrameError:
        if not frame:
            return FrameError("the frame is empty")
        match error:
            case RecursionError():
                return FrameError("the frame is nested too deep to be read")
            case UnicodeDecodeError():
                return FrameError(f"a string in the frame is not UTF-8: {error.reason}")
            case _:
                return FrameError(f"the frame is not {self.name}: {_cut(str(error))}")

    def _diagnosis(self, frame: bytes, fault: str) -> Exception:
        """Why a frame that the typed decoder refused with `fault` is not a command."""
        try:
            envelope = self._open(frame)
        except ValidationError as error:
            text, path = _split(str(error))
            if path is None:
                return FrameError(f"a frame is one map: {_cut(text)}")
            envelope = _Envelope()
        except (DecodeError, UnicodeDecodeError, RecursionError) as error:
            # The typed decoder stopped at the first wrong field, before the broken bytes.
            return self._no_frame(frame, error)
        return BadCommand(_usable_id(envelope.id), _refusal(envelope.t, fault))


def _usable_id(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_ID else None


def _refusal(name: object, fault: str) -> Refusal:
    if isinstance(name, str) and name not in COMMAND_NAMES and _split(fault)[1] == "t":
        quoted = name if len(name) <= NAME_QUOTED_MAX_CHARS else name[:NAME_QUOTED_MAX_CHARS] + "…"
        return Refusal(Code.UNKNOWN_COMMAND, f"there is no command `{quoted}`", field="t")
    return field_refusal(fault)


def field_refusal(fault: str) -> Refusal:
    """What a client is told of msgspec's words for a value of the wrong type."""
    text, path = _split(fault)
    if missing := _MISSING.fullmatch(text):
        path = f"{path}.{missing[1]}" if path else missing[1]
        return Refusal(Code.BAD_REQUEST, f"`{path}` is missing", field=path)
    if not path:
        return Refusal(Code.BAD_REQUEST, _cut(text))
    return Refusal(Code.BAD_REQUEST, _cut(f"`{path}`: {text[:1].lower()}{text[1:]}"), field=path)


# msgspec says what was wrong and where in one string and nowhere else. Its forms are
# "TEXT", "TEXT - at `$.a.b[3]`" and "TEXT - at `key` in `$.a`"; a map's own keys show as "[...]".
_FAULT = re.compile(r"(?s)(.*) - at (`key` in )?`\$([^`]*)`")
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_INDEX = re.compile(r"\[(\d+)\]")


def _split(fault: str) -> tuple[str, str | None]:
    """What was wrong, and the dotted path of the field; None where the whole frame is meant."""
    match = _FAULT.fullmatch(fault)
    if match is None:
        return fault, "" if _MISSING.fullmatch(fault) else None
    text, key, path = match.groups()
    if key:
        text = "a key of the map is not good: " + text
    return text, _INDEX.sub(r".\1", path.replace("[...]", "")).removeprefix(".")


def _cut(text: str) -> str:
    return text if len(text) <= MESSAGE_MAX_CHARS else text[: MESSAGE_MAX_CHARS - 1] + "…"


MSGPACK: Codec = _MsgspecCodec(
    "msgpack",
    msgspec.msgpack.Encoder().encode,
    msgspec.msgpack.Decoder(AnyCommand).decode,
    msgspec.msgpack.Decoder(_Envelope).decode,
)
JSON: Codec = _MsgspecCodec(
    "json",
    msgspec.json.Encoder().encode,
    msgspec.json.Decoder(AnyCommand).decode,
    msgspec.json.Decoder(_Envelope).decode,
)


def body_payload(body: Body, limits: Limits) -> int:
    """The size in msgpack bytes of a body, once it is sure that every codec can carry it.

    Raises `Refusal` (field `body`): `too_large`, or `bad_request` for what has no place in a body.
    A text is nested 0 deep, a flat map 1.
    """
    if isinstance(body, str):
        size = len(body) if body.isascii() else len(body.encode())
        size += 1 if size < 32 else 2 if size < 256 else 3 if size < 65536 else 5
    elif body is None:
        return 1
    else:
        _check_value(body, limits.nesting)
        size = len(MSGPACK.encode(body))
    if size > limits.body_bytes:
        message = f"a body of {size} bytes; the limit is {limits.body_bytes}"
        raise Refusal(Code.TOO_LARGE, message, field="body")
    return size


def _check_value(value: object, levels: int) -> None:
    """Refuse what JSON or a reader in another language cannot carry."""
    if type(value) is dict or type(value) is list:
        if levels == 0:
            raise _bad_body("it is nested too deep")
        items: Iterable[object] = value
        if isinstance(value, dict):
            items = value.values()
            if any(type(key) is not str for key in value):
                raise _bad_body("a key of a map is not a string")
        for item in items:
            if type(item) not in _PLAIN:
                _check_value(item, levels - 1)
    elif isinstance(value, int):
        if not INT_MIN <= value <= INT_MAX:
            raise _bad_body("an integer has more than 64 bits")
    elif not isinstance(value, float):
        raise _bad_body("msgpack extension types are not allowed")
    elif not math.isfinite(value):
        raise _bad_body("a number is not finite")


_PLAIN = frozenset({str, bool, bytes, type(None)})


def _bad_body(reason: str) -> Refusal:
    return Refusal(Code.BAD_REQUEST, f"`body`: {reason}", field="body")
