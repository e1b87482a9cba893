"""What goes to the same replicas travels together, within the limits and in whole parts."""

from __future__ import annotations

from typing import Any

import pytest
from cassandra.query import BatchStatement, BatchType

from storage.cassandra.connection import WRITE
from storage.cassandra.packing import (
    BATCH_MAX_BYTES,
    BATCH_MAX_ROWS,
    BATCH_MIN_ROWS,
    BATCHES_AT_ONCE,
    Part,
    packed,
)
from storage.cassandra.session import Connected
from storage.errors import Unavailable
from storage.records import Append, Commit
from tests.conformance.making import payload
from tests.helpers.cassandra import empty_store


def part(connection: Connected, conv: str, rows: int = 1, size: int = 100) -> Part:
    bind = connection.statements.bind
    statements = [bind("put_mark", 1, 0, 0, conv, user) for user in range(rows)]
    return Part(statements, rows * size)


def lengths(statements: list[Any]) -> list[int]:
    return [len(s) if isinstance(s, BatchStatement) else 1 for s in statements]


def test_one_row_is_no_batch(cassandra: Connected) -> None:
    only = part(cassandra, "g/1")
    assert packed([only], cassandra.replicas) == only.statements
    assert packed([], cassandra.replicas) == []


def test_rows_are_shared_out_among_a_few_batches(cassandra: Connected) -> None:
    few = [part(cassandra, f"g/{n}") for n in range(BATCH_MIN_ROWS + 1)]
    assert lengths(packed(few, cassandra.replicas)) == [BATCH_MIN_ROWS, 1]
    some = [part(cassandra, f"g/{n}") for n in range(20 * BATCHES_AT_ONCE - 1)]
    assert lengths(packed(some, cassandra.replicas)) == [*[20] * (BATCHES_AT_ONCE - 1), 19]


def test_a_batch_ends_at_its_rows_and_at_its_bytes(cassandra: Connected) -> None:
    many = [part(cassandra, f"g/{n}") for n in range(BATCHES_AT_ONCE * BATCH_MAX_ROWS + 5)]
    batches = lengths(packed(many, cassandra.replicas))
    assert batches == [*[BATCH_MAX_ROWS] * BATCHES_AT_ONCE, 5]
    large = [part(cassandra, f"g/{n}", size=BATCH_MAX_BYTES // 3) for n in range(7)]
    assert lengths(packed(large, cassandra.replicas)) == [3, 3, 1]


def test_a_part_is_never_torn(cassandra: Connected) -> None:
    """Its rows become durable together, which only one batch can promise."""
    parts = [part(cassandra, f"g/{n}", rows=4) for n in range(4)]
    parts.insert(2, part(cassandra, "g/9", rows=3 * BATCH_MAX_ROWS))
    assert lengths(packed(parts, cassandra.replicas)) == [8, 3 * BATCH_MAX_ROWS, 8]


async def test_a_full_batch_is_one_that_any_server_takes(cassandra: Connected) -> None:
    """The tests' own refuse what is above 50 KiB, as servers do of which nobody asked otherwise."""
    async with empty_store(cassandra) as store:
        with pytest.raises(Unavailable, match=r"(?i)batch too large"):
            await store.bridge.one(batch_of(cassandra, "x" * 1024, rows=60), WRITE)
        convs = [f"g/{number}" for number in range(1, 200)]
        entries = [payload(1, "x" * length) for length in range(0, 6_000, 30)]
        pairs = list(zip(convs, entries, strict=False))
        await store.commit(Commit(appends=[Append(conv, 1, [entry], 1) for conv, entry in pairs]))
        for conv, entry in pairs:
            assert await store.read(conv, limit=1) == [entry]


def batch_of(connection: Connected, text: str, rows: int) -> BatchStatement:
    batch = BatchStatement(BatchType.UNLOGGED)
    for number in range(rows):
        batch.add(
            connection.statements.bind("put_settings", 1, False, False, 0, "", text, number, "g/1")
        )
    return batch


def test_those_who_are_kept_by_others_travel_apart(cassandra: Connected) -> None:
    parts = [part(cassandra, f"g/{n}") for n in range(15)]
    there = [p.statements[0].routing_key for p in parts[:5]]
    found = packed(parts, lambda key: ("a", "b") if key in there else ("b", "c"))
    assert lengths(found) == [5, 10]
    assert all(statement.is_idempotent for statement in found)
    assert {statement.routing_key for statement in found} == {
        parts[0].statements[0].routing_key,
        parts[5].statements[0].routing_key,
    }
