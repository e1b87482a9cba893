"""Cassandra before the first case: a Java machine that has just begun still compiles its code.

Straight at the store, what the cases do: commits of many conversations, packed and one row each in
turn, so that both sides of a comparison find the server equally warm; then pages of them are read.
"""

from __future__ import annotations

from contextlib import nullcontext

import trio

from bench.baselines.inserts import alone
from bench.cluster.pages import PAGE_ENTRIES, payload
from bench.cluster.world import World
from storage.cassandra import CassandraStore, open_cassandra
from storage.records import Append, Commit

FIRST_USER = 8_000_000
"""Of those between whom the warming conversations are; the cases know none of them."""
WARM_CONVERSATIONS = 1_000
READS_AT_ONCE = 50
ROWS_PER_READING = 10_000
"""All conversations are read once for so many rows written."""
WARM_TIMEOUT_S = 300.0


def warm(world: World, rows: int) -> None:
    """Write about so many rows, and read a page of each conversation that has them."""
    trio.run(_warm, world, rows)


async def _warm(world: World, rows: int) -> None:
    users = range(FIRST_USER, FIRST_USER + 2 * min(rows, WARM_CONVERSATIONS), 2)
    convs = [f"d/{user}/{user + 1}" for user in users]
    with trio.fail_after(WARM_TIMEOUT_S):
        async with open_cassandra(world.settings) as store:
            for seq in range(1, rows // len(convs) + 1):
                commit = Commit(appends=[Append(conv, seq, [payload(seq)], seq) for conv in convs])
                with nullcontext() if seq % 2 else alone():
                    await store.commit(commit)
            for _ in range(rows // ROWS_PER_READING + 1):
                await _read(store, convs)


async def _read(store: CassandraStore, convs: list[str]) -> None:
    for first in range(0, len(convs), READS_AT_ONCE):
        some = convs[first : first + READS_AT_ONCE]
        await store.heads(some)
        await store.load(some, PAGE_ENTRIES)
        for conv in some:
            await store.read(conv, limit=PAGE_ENTRIES)
