"""S2: how long `sync` takes for a user of many conversations, after a few of them have moved.

Once as it is after a long absence: the broker was started anew, so that nothing is in memory and
all comes from the store; and once while what moved was written a moment ago. Each time with a
cursor for every conversation, one at a time, on an otherwise idle broker.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import servers, stats, wire
from bench.cluster.line import Line
from bench.cluster.measuring import Plan
from bench.cluster.results import CaseResult, Figure, Target
from bench.cluster.world import Broker, World
from bench.wire import ProtocolError

SQLITE_P99_MS = 50.0
CASSANDRA_P99_MS = 150.0
SEED = 1
SETTLE_S = 2.0
"""After a start, before anything is asked."""
WARM = 20
"""Syncs before the first sample."""


def sync(world: World, plan: Plan) -> CaseResult:
    """S2, in both stores."""
    sizes = plan.sizes
    load = f"`sync` of a user with {sizes.conversations:,} conversations, {sizes.moved} moved"
    result = CaseResult(case="S2", load=load)
    embedded = world.folder / "sqlite"
    tokens = servers.make_users(embedded, 2)
    for store, tokens_, data, bound in (
        ("SQLite", tokens, embedded, SQLITE_P99_MS),
        ("Cassandra", world.tokens[-2:], None, CASSANDRA_P99_MS),
    ):
        reached = max(_in(store, world, plan, result, tokens_, data))
        result.targets.append(
            Target(what=f"{store}: p99", unit="ms", value=bound, reached=reached, at_most=True)
        )
    return result


def _in(
    store: str, world: World, plan: Plan, result: CaseResult, tokens: list[str], data: Path | None
) -> Iterator[float]:
    """The p99 of each way, in ms."""
    with world.serve(data=data, name="filling") as broker:
        cursors = _fill(broker, tokens, plan.sizes.conversations)
    with world.serve(data=data, name="syncing") as broker:
        time.sleep(SETTLE_S)
        # The first entry is the group's own, the second a message: each has moved by one.
        cold = _samples(broker, tokens, cursors, plan, live=False)
        live = _samples(broker, tokens, cursors, plan, live=True)
    for name, samples in (("nothing in memory", cold), ("moved a moment ago", live)):
        found = stats.latency(samples)
        assert found is not None
        plan.tell(f"S2 {store}, {name}: p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms")
        title = f"{store}, {name}, {found.samples} samples"
        result.figures += [
            Figure(name=f"{title}: p50", unit="ms", rounds=[found.p50_ms]),
            Figure(name=f"{title}: p99", unit="ms", rounds=[found.p99_ms]),
        ]
        yield found.p99_ms


def _fill(broker: Broker, tokens: list[str], conversations: int) -> dict[str, int]:
    """Groups of two with a message in each; their heads."""
    writer, reader = (Line(broker.tcp, token) for token in tokens[:2])
    create = {"t": "group.create", "title": "bench", "kind": "group", "members": [reader.user]}
    made = writer.ask_all([create] * conversations)
    convs = [str(reply["conv"]) for reply in made]
    reader.close()
    sent = writer.ask_all([_message(conv, "first") for conv in convs])
    writer.close()
    return {conv: int(reply["seq"]) for conv, reply in zip(convs, sent, strict=True)}


def _message(conv: str, key: str) -> dict[str, Any]:
    body = "x" * wire.BODY_BYTES
    return {"t": "send", "conv": conv, "key": key, "kind": "text", "body": body}


def _samples(
    broker: Broker, tokens: list[str], cursors: dict[str, int], plan: Plan, *, live: bool
) -> list[int]:
    """Nanoseconds of each `sync`; `cursors` are moved on with what is written."""
    chance = random.Random(SEED)
    writer = Line(broker.tcp, tokens[0])
    samples = []
    for number in range(-WARM, plan.sizes.samples):
        moved = chance.sample(sorted(cursors), min(plan.sizes.moved, len(cursors)))
        heads = dict.fromkeys(moved, 0)
        if live:
            sent = writer.ask_all([_message(conv, f"live {number}") for conv in moved])
            heads = {conv: int(r["seq"]) for conv, r in zip(moved, sent, strict=True)}
            behind = dict(cursors)
        else:
            behind = {**cursors, **{conv: cursors[conv] - 1 for conv in moved}}
        reader = Line(broker.tcp, tokens[1])
        began = time.monotonic_ns()
        reply = reader.ask("sync", cursors=behind, limit=len(moved))
        if number >= 0:
            samples.append(time.monotonic_ns() - began)
        reader.close()
        if {each["conv"] for each in reply["conversations"]} != set(moved) or "next" in reply:
            raise ProtocolError("sync told of other conversations than those that moved")
        if live:
            cursors |= heads
    writer.close()
    return samples
