"""Commands made from the schema of the protocol: nearly right ones, with anything in some fields.

Every command of `AnyCommand` is covered by itself: a new one is generated without a change here.
"""

from __future__ import annotations

from typing import Any, get_args

import msgpack
from hypothesis import strategies as st
from msgspec import inspect

from broker.wire.commands import AnyCommand
from broker.wire.limits import MAX_ID

Map = dict[str, Any]
Values = st.SearchStrategy[Any]

texts = st.text(max_size=12) | st.sampled_from(["", "\x00", "a" * 5_000, "\u202e", "🍵" * 70])
integers = st.integers(-(2**63), 2**64 - 1) | st.sampled_from(
    [-1, 0, 1, MAX_ID, MAX_ID + 1, 2**63, 2**64 - 1]
)
plain = st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False)
json_junk = st.recursive(
    plain | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
msgpack_junk = st.recursive(
    plain
    | texts
    | st.floats()
    | st.binary(max_size=8)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=8)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(texts | st.integers(0, 9) | st.binary(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)

people = st.sampled_from([2, 3, 1, 4])
FAMILIAR: dict[str, Values] = {
    "conv": st.sampled_from(["g/1"] * 6 + ["d/1/2"] * 3)
    | st.sampled_from(["g/999", "d/1/999", "d/2/3", "x/1", "d/2/1", "d/0/1"]),
    "key": st.sampled_from(["a", "b", "c"]) | st.text(min_size=1, max_size=3),
    "kind": st.sampled_from(["text", "text", "text", "custom", "image", "group"]),
    "body": st.sampled_from(["tea?"] * 5)
    | st.sampled_from([{"name": "n", "mime": "m", "data": ""}, {"a": [1]}, None]),
    "ref": st.integers(1, 4),
    "seq": st.integers(1, 4),
    "after": st.integers(0, 4),
    "user": people,
    "users": st.lists(people, min_size=1, max_size=3),
    "members": st.lists(people, max_size=3),
}
"""Values that lead further into the broker than chance would."""
USUAL = frozenset({"conv"})
"""Optional fields that are rarely left out."""


def values(of: inspect.Type, junk: Values) -> Values:
    """Values that a field of this type may have."""
    match of:
        case inspect.IntType(ge=ge, le=le):
            low, high = ge or 0, MAX_ID if le is None else le
            return st.integers(low, min(low + 5, high)) | st.just(high)
        case inspect.StrType(min_length=low, max_length=high):
            return st.text(min_size=low or 0, max_size=min((low or 0) + 4, high or 99))
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.LiteralType(values=allowed):
            return st.sampled_from(allowed)
        case inspect.ListType(item_type=item, min_length=low):
            return st.lists(values(item, junk), min_size=low or 0, max_size=3)
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(values(key, junk), values(value, junk), max_size=3)
        case inspect.UnionType(types=types):
            return st.one_of([values(each, junk) for each in types])
        case inspect.StructType(fields=fields):
            return st.fixed_dictionaries({f.encode_name: values(f.type, junk) for f in fields})
        case _:
            return junk


@st.composite
def commands(draw: st.DrawFn, junk: Values) -> Map:
    """A command with any number of its fields missing or replaced; its `id` is the caller's."""
    struct = draw(st.sampled_from(COMMANDS))
    fields = [field for field in struct.fields if field.encode_name != "id"]
    command: Map = {"t": struct.tag}
    some = st.lists(st.integers(0, max(len(fields) - 1, 0)), max_size=2)
    spoiled = draw(st.just([]) | some)
    for index, field in enumerate(fields):
        name = field.encode_name
        if index in spoiled:
            value = draw(junk | st.just(MISSING))
        elif not field.required and (draw(st.integers(0, 3)) == 0) == (name in USUAL):
            value = MISSING
        else:
            value = draw(FAMILIAR[name] if name in FAMILIAR else values(field.type, junk))
        if value is not MISSING:
            command[name] = value
    if draw(st.integers(0, 9)) == 0:
        command[draw(st.text(max_size=3))] = draw(junk)
    if draw(st.integers(0, 19)) == 0:
        command["t"] = draw(junk | st.just("no.such.command"))
    return command


MISSING = object()
COMMANDS: list[inspect.StructType] = [
    kind
    for kind in map(inspect.type_info, get_args(AnyCommand))
    if isinstance(kind, inspect.StructType)
]
