"""A beat of which nobody knows whether it took place, and that is said again: others may have seen
it stand still since it was first said."""

from __future__ import annotations

import contextlib

import pytest
import trio
from trio.testing import MockClock

from actors.cluster.placement import Placement
from storage.errors import Unavailable
from storage.records import decode_entry
from tests.actors.cluster.nodes import LEASE_MS, ClusterNode, Nodes, nodes_of, send
from tests.actors.cluster.test_placement import Weather, one_writer_each
from tests.helpers.peer import Ended

LEASE_S = LEASE_MS / 1000


async def beating(nodes: Nodes) -> tuple[Placement, Weather]:
    """A node that holds its lease, and beats when it is told to."""
    alone = nodes.start("n1", together=False)
    weather = Weather(alone)
    placement = alone.placement
    placement._good_until = float("-inf")
    await placement.beat()
    await placement.beat()
    return placement, weather


async def test_a_beat_that_is_said_again_renews_the_lease_from_when_it_was_first_said(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of() as nodes:
        placement, weather = await beating(nodes)
        assert placement.good()
        weather.beats_in_doubt = True
        with pytest.raises(Unavailable):
            await placement.beat()
        await trio.sleep(LEASE_S * 0.5)
        with pytest.raises(Unavailable):
            await placement.beat()
        await trio.sleep(LEASE_S * 0.45)
        assert not placement.good()
        weather.beats_in_doubt = False
        await placement.beat()
        assert await nodes.leases.remove(placement.me.incarnation, placement.me.beat)
        assert not placement.good(), "others have seen it stand still for a lease by now"


async def test_the_beat_after_one_that_was_said_again_gives_the_whole_lease(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of() as nodes:
        placement, weather = await beating(nodes)
        weather.beats_in_doubt = True
        with pytest.raises(Unavailable):
            await placement.beat()
        weather.beats_in_doubt = False
        await trio.sleep(LEASE_S * 0.5)
        await placement.beat()
        await placement.beat()
        await trio.sleep(LEASE_S * 0.7)
        assert placement.good()


async def cut_off(nodes: Nodes, n: ClusterNode, other: ClusterNode) -> Weather:
    """Just after a beat it loses everything but its clients: the bus, and answers of the leases."""
    weather = Weather(n)
    beat = n.placement.me.beat
    await nodes.until(lambda: n.placement.me.beat > beat)
    nodes.network.part(other.inbox, n.inbox)
    weather.beats_in_doubt = weather.looks_fail = True
    return weather


@pytest.mark.parametrize("silent_s", [1.6, 1.7, 1.8, 1.9, 2.0, 2.1, 2.2, 2.3])
async def test_whenever_beats_are_answered_again_no_slot_has_two_writers(
    autojump_clock: MockClock, silent_s: float
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        weather = await cut_off(nodes, n2, n1)
        await trio.sleep(silent_s + 0.4)
        weather.beats_in_doubt = False
        for _ in range(200):
            await trio.sleep(0.01)
            assert one_writer_each(nodes)


@pytest.mark.parametrize("silent_s", [2.2, 2.3])
async def test_what_is_acknowledged_after_beats_are_answered_again_is_in_the_log(
    autojump_clock: MockClock, silent_s: float
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        ann, bob = await n2.join(1), await n1.join(int(conv.rpartition("/")[2]))
        assert await send(ann, conv, "a") == [1]
        weather = await cut_off(nodes, n2, n1)
        await trio.sleep(silent_s + 0.4)
        weather.beats_in_doubt = False
        with trio.move_on_after(LEASE_S):
            await nodes.until(lambda: n1.owns(conv))
        await send(bob, conv, "by n1")
        acknowledged = False
        with contextlib.suppress(Ended):  # it may know by then that it is held for dead
            reply = await ann.ask("send", conv=conv, key="n2", kind="text", body="by n2")
            acknowledged = reply["t"] == "ok"
        stored = await nodes.store.read(conv, after=0, limit=10)
        bodies = [decode_entry(payload).body for payload in stored]
        assert "by n1" in bodies
        assert not acknowledged or "by n2" in bodies
