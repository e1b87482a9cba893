"""`parley cluster status`: who lives is seen by its beat alone, and what nobody owns is counted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
import trio
from rich.console import Console
from trio.testing import MockClock

from broker.cli.cluster import LOOK_EVERY_S, ClusterStatus, observe, table_of
from storage.memory.shared import MemoryLeases
from storage.names import SLOTS
from storage.records import NodeRecord, SlotRecord
from tests.broker.cli.conftest import Parley

LEASE_S = 10.0
BEAT_S = 2.0


async def joined(leases: MemoryLeases, name: str, slots: Iterable[int], **more: int) -> NodeRecord:
    """A node that has beaten once and owns these slots."""
    record = NodeRecord(node=name, incarnation=f"{name}.1", **more)
    assert await leases.beat(record)
    await leases.claim([SlotRecord(slot, record.incarnation, 1) for slot in slots])
    return record


async def beat(leases: MemoryLeases, record: NodeRecord) -> None:
    while True:
        await trio.sleep(BEAT_S)
        record.beat += 1
        await leases.beat(record)


async def test_a_node_lives_by_its_beat_and_the_look_ends_when_all_have_beaten(
    autojump_clock: MockClock,
) -> None:
    leases = MemoryLeases()
    ann = await joined(leases, "ann", range(4), connections=7, conversations=5, lag_ms=3)
    bob = await joined(leases, "bob", range(4, 10))
    bob.draining = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(beat, leases, ann)
        nursery.start_soon(beat, leases, bob)
        seen = await observe(leases, LEASE_S)
        nursery.cancel_scope.cancel()

    assert trio.current_time() < BEAT_S + 2 * LOOK_EVERY_S
    assert [(node.node, node.state, node.slots) for node in seen.nodes] == [
        ("ann", "alive", 4),
        ("bob", "draining", 6),
    ]
    first = seen.nodes[0]
    assert (first.connections, first.conversations, first.lag_ms) == (7, 5, 3)
    assert first.beat_age_ms <= 1000 * LOOK_EVERY_S
    assert (seen.slots, seen.slots_unowned) == (SLOTS, SLOTS - 10)


async def test_one_whose_beat_stands_still_for_a_lease_is_dead_and_what_it_had_waits(
    autojump_clock: MockClock,
) -> None:
    leases = MemoryLeases()
    ann = await joined(leases, "ann", range(SLOTS - 10))
    await joined(leases, "bob", range(SLOTS - 10, SLOTS))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(beat, leases, ann)
        seen = await observe(leases, LEASE_S)
        nursery.cancel_scope.cancel()

    assert [node.state for node in seen.nodes] == ["alive", "dead"]
    assert seen.nodes[1].beat_age_ms >= 1000 * LEASE_S
    assert (seen.nodes[1].slots, seen.slots_unowned) == (10, 10)


async def test_one_with_a_longer_lease_is_looked_at_for_longer(autojump_clock: MockClock) -> None:
    leases = MemoryLeases()
    await joined(leases, "ann", range(SLOTS), lease_ms=30_000)
    seen = await observe(leases, LEASE_S)

    assert [node.state for node in seen.nodes] == ["dead"]
    assert 30 <= trio.current_time() < 31


async def test_who_comes_and_goes_while_one_looks(autojump_clock: MockClock) -> None:
    leases = MemoryLeases()
    gone = await joined(leases, "ann", range(2))

    async def change() -> None:
        await trio.sleep(1)
        await joined(leases, "bob", range(2, 5))
        await leases.remove(gone.incarnation, gone.beat)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        seen = await observe(leases, LEASE_S)

    assert trio.current_time() < 2
    assert [(node.node, node.state) for node in seen.nodes] == [("bob", "alive")]
    assert seen.slots_unowned == SLOTS - 3


async def test_no_node_at_all_is_seen_at_once(autojump_clock: MockClock) -> None:
    seen = await observe(MemoryLeases(), LEASE_S)

    assert (trio.current_time(), seen.nodes) == (0, [])


async def test_the_table_has_a_line_for_each_node(autojump_clock: MockClock) -> None:
    leases = MemoryLeases()
    await joined(leases, "ann", range(3), connections=70)
    seen = await observe(leases, LEASE_S)
    console = Console(width=120)
    with console.capture() as captured:
        console.print(table_of(seen))

    (line,) = [line.split() for line in captured.get().splitlines() if "ann" in line]
    assert line[:3] == ["ann", "ann.1", "dead"]
    assert line[5:7] == ["3", "70"]


def test_what_is_printed_as_json_is_the_status() -> None:
    seen = ClusterStatus(nodes=[], slots=SLOTS, slots_unowned=SLOTS)
    assert msgspec.json.decode(msgspec.json.encode(seen), type=ClusterStatus) == seen


@pytest.mark.parametrize(
    "command", [("cluster", "status"), ("schema", "apply"), ("schema", "show")]
)
def test_an_embedded_store_is_no_cluster(
    parley: Parley, tmp_path: Path, command: tuple[str, str]
) -> None:
    result = parley(*command, "--data", tmp_path)
    assert result.exit_code == 2
    assert "store.url" in result.output
