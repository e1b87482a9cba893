"""A node that stops is gone within the time that its unit gives it, whatever does not answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from broker.drain import FINISH_S
from tests.broker.commands.people import say_to
from tests.helpers.cluster import running_cluster

DRAIN_S = 3.0


async def test_with_stuck_leases_and_a_client_that_stays_a_drain_still_ends(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"connections__drain_ms": int(DRAIN_S * 1000)}
    async with running_cluster(tmp_path, nodes=2, **settings) as brokers:
        leaving = brokers[0]
        ann, bob = await leaving.join("ann"), await brokers[1].user("bob")
        await say_to(ann, bob.id, "and never a goodbye")

        async def stuck(*_: object) -> None:
            await trio.sleep_forever()

        for method in ("beat", "nodes", "slots", "claim", "remove"):
            monkeypatch.setattr(brokers.leases, method, stuck)
        began = trio.current_time()
        await brokers.drain(leaving)
        took = trio.current_time() - began
        # Handing over in vain, then the client's own time, then the last things.
        assert 2 * DRAIN_S < took <= 2 * DRAIN_S + FINISH_S + 0.1
        assert (await ann.event("bye"))["code"] == "draining"
        await ann.ended()
