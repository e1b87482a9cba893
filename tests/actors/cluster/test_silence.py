"""Nodes that live by Cassandra and do not hear each other by Redis: it is said, and once."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.cluster.silence import TOLD_AFTER_LEASES
from storage.errors import Unavailable
from tests.actors.cluster.nodes import LEASE_MS, ClusterNode, Network, Nodes, nodes_of

LEASE_S = LEASE_MS / 1000
TOLD_S = (TOLD_AFTER_LEASES + 1) * LEASE_S
"""When a node that was silent from now on, or from its start, has been told of."""


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Of which nodes it was said."""
    return [
        str(record.args[0]).partition(".")[0]
        for record in caplog.records
        if "nothing has passed" in record.msg and isinstance(record.args, tuple)
    ]


def silent_ms(n: ClusterNode, other: str) -> int:
    """As /api/monitor/cluster shows it."""
    seen: Any = n.cluster.status()["nodes"]
    (link,) = [node["link"] for node in seen if node["node"] == other]
    return int(link["silent_ms"])


async def test_a_node_on_another_redis_is_told_of_once_by_each_and_it_tells_of_each(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        nodes.network = Network()
        n3 = nodes.start("n3")
        await trio.sleep(TOLD_AFTER_LEASES * LEASE_S - 1)
        assert told(caplog) == [], "it may just be starting"
        await trio.sleep(TOLD_S)
        assert sorted(told(caplog)) == ["n1", "n2", "n3", "n3"]
        await trio.sleep(10 * LEASE_S)
        assert len(told(caplog)) == 4
        for n, other in ((n1, "n3"), (n2, "n3"), (n3, "n1"), (n3, "n2")):
            assert silent_ms(n, other) > 10 * LEASE_MS
        assert silent_ms(n1, "n2") == silent_ms(n2, "n1") == 0


async def test_who_was_heard_again_may_be_told_of_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        for times in (1, 2):
            nodes.network.part(n1.inbox, n2.inbox)
            await trio.sleep(2 * TOLD_S)
            assert sorted(told(caplog)) == ["n1"] * times + ["n2"] * times
            nodes.network.cut.clear()
            await nodes.settled()
            await trio.sleep(1.0)
            assert silent_ms(n1, "n2") == 0


async def test_nobody_is_told_of_who_died_or_whose_store_is_away(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes_of("n1", "n2", "n3") as nodes:
        nodes.running[2].kill()
        await trio.sleep(TOLD_S)
        cut_off_from_all(nodes, monkeypatch)
        await trio.sleep(2 * TOLD_S)
        assert told(caplog) == []


def cut_off_from_all(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the leases nor the bus tell anything from now on."""
    for method in ("beat", "nodes", "slots", "claim", "remove"):
        monkeypatch.setattr(nodes.leases, method, away)
    nodes.network.part(*(n.inbox for n in nodes.running))


async def away(*_: object) -> None:
    raise Unavailable("Cassandra is away", applied=False)
