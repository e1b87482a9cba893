"""What is bound is what the driver would bind, for every statement that there is."""

from __future__ import annotations

import re
import struct
from random import Random
from typing import Any

import pytest
from cassandra.query import UNSET_VALUE

from storage.cassandra.binding import Binder
from storage.cassandra.session import Connected
from storage.cassandra.statements import CQL

TRIES = 20
TEXTS = ["", "d/1/2", "grüße 👋", "x" * 300]


def value_of(column_type: Any, rng: Random) -> Any:
    match column_type.cassname:
        case "LongType":
            return rng.choice([0, -1, 2**63 - 1, -(2**63), rng.randrange(1 << 40)])
        case "Int32Type":
            return rng.choice([0, -1, 2**31 - 1, -(2**31), rng.randrange(1 << 20)])
        case "UTF8Type" | "VarcharType":
            return rng.choice(TEXTS)
        case "BytesType":
            return rng.randbytes(rng.choice([0, 1, 300]))
        case "BooleanType":
            return rng.random() < 0.5
        case "ListType":
            (inner,) = column_type.subtypes
            return [value_of(inner, rng) for _ in range(rng.randrange(4))]
        case "TupleType":
            return tuple(value_of(inner, rng) for inner in column_type.subtypes)
    raise AssertionError(f"no values of {column_type.cassname}")


def values_for(binder: Binder, rng: Random) -> list[Any]:
    return [value_of(column.type, rng) for column in binder.prepared.column_metadata]


@pytest.mark.parametrize("name", sorted(CQL))
def test_values_and_routing_keys_are_those_of_the_driver(cassandra: Connected, name: str) -> None:
    rng = Random(name)
    binder = cassandra.statements.binders[name]
    for _ in range(TRIES):
        values = values_for(binder, rng)

        ours, theirs = binder.bind(values), binder.prepared.bind(values)

        assert list(ours.values) == list(theirs.values)
        assert ours.routing_key == theirs.routing_key
        assert (ours.keyspace, ours.is_idempotent) == (theirs.keyspace, theirs.is_idempotent)


def test_what_is_unset_stays_unset(cassandra: Connected) -> None:
    binder = cassandra.statements.binders["add_row"]
    values = ["d/1/2", 0, 1, 2, b"said", UNSET_VALUE, UNSET_VALUE, 2]

    ours, theirs = binder.bind(values), binder.prepared.bind(values)

    assert list(ours.values) == list(theirs.values)


@pytest.mark.parametrize("name", sorted(CQL))
def test_nothing_is_bound_as_null(cassandra: Connected, name: str) -> None:
    binder = cassandra.statements.binders[name]
    values = values_for(binder, Random(name))
    for number, column in enumerate(binder.prepared.column_metadata):
        with pytest.raises(ValueError, match=re.escape(column.name)) as caught:
            binder.bind([*values[:number], None, *values[number + 1 :]])
        assert binder.prepared.query_string in str(caught.value)


def test_what_does_not_fit_is_refused(cassandra: Connected) -> None:
    binder = cassandra.statements.binders["put_mark"]
    with pytest.raises(ValueError, match="shorter"):
        binder.bind([1, 2])
    with pytest.raises(struct.error):
        binder.bind([1, 2**63, 0, "d/1/2", 1])


def test_a_statement_that_is_printed_does_not_show_what_people_said(cassandra: Connected) -> None:
    bound = cassandra.statements.bind("add_row", "d/1/2", 0, 1, 2, b"secret", 3, UNSET_VALUE, 2)
    assert "secret" not in str(bound)
    assert "not shown" in str(bound)
