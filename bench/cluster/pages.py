"""S5: whether a page costs the same wherever it is, in a short conversation and in a very long one.

Straight at the store, as the broker uses it: one conversation of exactly one partition, one of a
million entries and as many as fill its last partition, both at rest. Cassandra is started anew
between filling and reading, so that it reads its files. A page across two partitions, which is two
queries in a conversation of any length, is told beside the others.
"""

from __future__ import annotations

import base64
import random
import time

import trio

from bench.cluster.measuring import Plan
from bench.cluster.results import CaseResult, Figure, Target
from bench.cluster.world import World
from bench.stats import percentile
from bench.wire import BODY_BYTES
from storage.cassandra import CassandraStore, open_cassandra
from storage.records import Append, Commit, Entry, encode_entry

PAGE_ENTRIES = 50
"""What a client asks for when somebody scrolls."""
COMMIT_ENTRIES = 2_000
"""In one commit while a conversation is filled."""
FLAT_TIMES = 1.5
"""The slowest page's median may be so many times the fastest one's."""
WARM = 200
"""Looks at each page before the first sample."""
ACROSS = "a page across two partitions"
SHORT, LONG = "g/9007199254740981", "g/9007199254740982"
FILL_TIMEOUT_S = 900.0


TEXT = base64.b64encode(random.Random(1).randbytes(750_000)).decode()
"""Bodies are pieces of it, so that no compression makes light of them."""
STRIDE_CHARS = 7_919
"""From one entry's piece to the next one's."""


def payload(seq: int) -> bytes:
    """An entry as the broker stores it, with a body of the usual size."""
    at = seq * STRIDE_CHARS % (len(TEXT) - BODY_BYTES)
    body = TEXT[at : at + BODY_BYTES]
    return encode_entry(Entry(seq=seq, sender=1, ts=seq, kind="text", body=body, key=f"{seq:012}"))


def pages(world: World, plan: Plan) -> CaseResult:
    """S5."""
    full = plan.sizes.bucket_entries - 1  # the first partition begins with entry 1, not 0
    lengths = {SHORT: full, LONG: plan.sizes.entries + full}
    load = f"pages of {PAGE_ENTRIES} in conversations of {_names(lengths)} entries"
    result = CaseResult(case="S5", load=load)
    world.restart_cassandra()
    before = world.bytes_on_disk("timeline")
    rates = trio.run(_fill, world, lengths)
    plan.tell(f"S5 filled at {rates[LONG]:,.0f} entries/s")
    result.figures.append(
        Figure(name="filling the long one", unit="entries/s", rounds=[rates[LONG]])
    )
    world.restart_cassandra()
    size = (world.bytes_on_disk("timeline") - before) / sum(lengths.values())
    result.figures.append(Figure(name="an entry in Cassandra's files", unit="bytes", rounds=[size]))
    medians = []
    for (conv, place), samples in trio.run(_read, world, plan, lengths).items():
        p50, p99 = (percentile(sorted(samples), share) / 1e6 for share in (0.5, 0.99))
        if place != ACROSS:
            medians.append(p50)
        name = f"{lengths[conv]:,} entries, {place}"
        plan.tell(f"S5 {name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
        result.figures += [
            Figure(name=f"{name}: p50", unit="ms", rounds=[p50]),
            Figure(name=f"{name}: p99", unit="ms", rounds=[p99]),
        ]
    result.targets.append(
        Target(
            what="slowest page's median against the fastest one's",
            value=FLAT_TIMES,
            reached=max(medians) / min(medians),
            at_most=True,
            times=True,
        )
    )
    return result


def _names(lengths: dict[str, int]) -> str:
    return " and ".join(f"{length:,}" for length in lengths.values())


async def _fill(world: World, lengths: dict[str, int]) -> dict[str, float]:
    """Entries a second by conversation."""
    rates = {}
    async with open_cassandra(world.settings) as store:
        with trio.fail_after(FILL_TIMEOUT_S):
            for conv, length in lengths.items():
                began = trio.current_time()
                for first in range(1, length + 1, COMMIT_ENTRIES):
                    last = min(length, first + COMMIT_ENTRIES - 1)
                    payloads = [payload(seq) for seq in range(first, last + 1)]
                    await store.commit(Commit(appends=[Append(conv, first, payloads, ts=last)]))
                rates[conv] = length / (trio.current_time() - began)
            await store.put_away(dict.fromkeys(lengths, 0))
    return rates


async def _read(
    world: World, plan: Plan, lengths: dict[str, int]
) -> dict[tuple[str, str], list[int]]:
    """Nanoseconds by conversation and place, in turns, so that a slow moment meets all."""
    samples: dict[tuple[str, str], list[int]] = {}
    places = [
        (conv, place, after)
        for conv, length in lengths.items()
        for place, after in (
            ("first page", 0),
            ("middle page", length // 2),
            ("last page", length - PAGE_ENTRIES),
        )
    ]
    places.append((LONG, ACROSS, plan.sizes.entries - PAGE_ENTRIES // 2))
    async with open_cassandra(world.settings) as store:
        for number in range(-WARM, plan.sizes.samples):
            for conv, place, after in places:
                took = await _page(store, conv, after)
                if number >= 0:
                    samples.setdefault((conv, place), []).append(took)
    return samples


async def _page(store: CassandraStore, conv: str, after: int) -> int:
    began = time.monotonic_ns()
    entries = await store.read(conv, after=after, limit=PAGE_ENTRIES)
    took = time.monotonic_ns() - began
    assert len(entries) == PAGE_ENTRIES
    return took
