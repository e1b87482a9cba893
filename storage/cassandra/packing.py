"""Group commit: what goes to the same replicas travels in one unlogged batch, under the limits.

All rows of one partition in a batch become durable together; different partitions do not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cassandra.query import BatchStatement, BatchType
from msgspec import Struct

BATCH_MAX_BYTES = 40 * 1024
"""In a batch of several partitions; servers refuse 50 KiB unless told otherwise. More batches."""
BATCH_MAX_ROWS = 50
BATCH_MIN_ROWS = 12
BATCHES_AT_ONCE = 4
"""In a batch of several partitions: as many rows as make so many batches, between these two. Each
batch costs both ends, but a server writes its rows one after the other where it is a replica
itself, each when it is on the disk. Medians in milliseconds: a commit of 50 conversations took 13.9
in batches of 5, 10.3 of 12, 11.3 of 20 and 14.9 as one; 200 of them 45, 42, 35, and 34 in batches
of 50; 1,000 took 172 in batches of 5, 144 of 20, 105 of 50 and 118 of 100."""
PART_MAX_BYTES = 1024 * 1024
"""In one partition at once (servers take a mutation up to half a commit log segment, 16 MiB)."""
PART_MAX_ROWS = 500
"""In one partition at once; what is longer is written part after part."""
ROW_BYTES = 64
"""What a row takes beside its values, estimated high."""


class Part(Struct, gc=False):
    """Statements of one partition that belong together, and about how large they are."""

    statements: list[Any]
    bytes: int


def packed(parts: Iterable[Part], replicas: Callable[[bytes], Sequence[Any]]) -> list[Any]:
    """Statements to send, each on its own or a batch. `replicas` tells who keeps a routing key."""
    groups: defaultdict[tuple[Any, ...], list[Part]] = defaultdict(list)
    for part in parts:
        groups[tuple(replicas(part.statements[0].routing_key))].append(part)
    found = []
    for group in groups.values():
        count = sum(len(part.statements) for part in group)
        max_rows = min(BATCH_MAX_ROWS, max(BATCH_MIN_ROWS, -(-count // BATCHES_AT_ONCE)))
        rows: list[Any] = []
        size = 0
        for part in group:
            fits = size + part.bytes <= BATCH_MAX_BYTES
            if rows and not (fits and len(rows) + len(part.statements) <= max_rows):
                found.append(_batch(rows))
                rows, size = [], 0
            rows += part.statements
            size += part.bytes
        found.append(_batch(rows))
    return found


def _batch(statements: list[Any]) -> Any:
    if len(statements) == 1:
        return statements[0]
    batch = BatchStatement(BatchType.UNLOGGED)
    for statement in statements:
        batch.add(statement)
    batch.is_idempotent = True
    return batch
