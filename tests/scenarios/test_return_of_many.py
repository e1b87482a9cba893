"""Hundreds of real clients whose node is gone come to another at once, and all are served there.

What thousands cost the nodes among themselves: `tests/scenarios/test_presence_of_nodes.py`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.cluster.link import CONTACT_S
from actors.presence import LOOKUP_USERS
from tests.helpers.cluster import Brokers, Member, running_cluster
from tests.helpers.peer import Peer

MANY = 500
WATCHERS = 3
LEASE_MS = 2_000
SETTINGS: dict[str, Any] = {"presence__coalesce_ms": 100, "connections__drain_ms": 1_000}
EVENTS_MAX = WATCHERS * (MANY // LOOKUP_USERS + 2)
"""Of one change of all: one event tells a watcher of up to `LOOKUP_USERS`."""


class Crowd:
    """Clients with sockets and sessions, and others who watch all of them."""

    def __init__(self, brokers: Brokers) -> None:
        self.brokers = brokers
        self.peers: list[Peer] = []
        self.told: dict[bool, Counter[int]] = {True: Counter(), False: Counter()}
        """How often watchers heard of each user that they are online, and that they are not."""
        self.events = 0

    async def come(self, member: Member) -> float:
        """All at once; how long it took until the last of them could speak."""
        began = trio.current_time()
        peers: dict[str, Peer] = {}

        async def join(name: str) -> None:
            peers[name] = await member.join(name)

        async with trio.open_nursery() as nursery:
            for number in range(MANY):
                nursery.start_soon(join, f"user{number}")
        self.peers = [peers[f"user{number}"] for number in range(MANY)]
        return trio.current_time() - began

    async def be_watched(self, member: Member) -> None:
        users = [peer.user for peer in self.peers]
        for number in range(WATCHERS):
            watcher = await member.join(f"watcher{number}")
            await watcher.ok("presence.watch", users=users)
            self.brokers.nursery.start_soon(self._listen, watcher)

    async def _listen(self, watcher: Peer) -> None:
        while True:
            event = await watcher.event("presence")
            self.events += 1
            for state in event["users"]:
                self.told[state["online"]][state["user"]] += 1


@pytest.mark.parametrize("end", ["killed", "stopped"])
async def test_hundreds_of_clients_whose_node_is_gone_come_to_another_without_a_storm(
    tmp_path: Path, autojump_clock: MockClock, end: str
) -> None:
    async with running_cluster(tmp_path, lease_ms=LEASE_MS, **SETTINGS) as brokers:
        first, second, third = brokers.members
        crowd = Crowd(brokers)
        await crowd.come(first)
        await crowd.be_watched(third)

        if end == "killed":
            # The bus does not say that its inbox is gone: the worst case.
            await brokers.kill(first, silent=True)
            took = await crowd.come(second)
        else:
            brokers.nursery.start_soon(brokers.drain, first)
            for peer in crowd.peers:
                assert (await peer.event("bye"))["code"] == "draining"
                await peer.aclose()
            took = await crowd.come(second)
        await trio.sleep(3 * LEASE_MS / 1000)

        assert took <= CONTACT_S + 0.5, "waits for the dead only while it may be alive"
        assert all(second.node.registry.connections_of(peer.user) for peer in crowd.peers)
        for user in (peer.user for peer in crowd.peers):
            online, offline = crowd.told[True][user], crowd.told[False][user]
            assert offline in ({0} if end == "killed" else {0, WATCHERS})
            assert offline <= online <= 2 * WATCHERS
        assert crowd.events <= 3 * EVENTS_MAX
        ann, bob = crowd.peers[0], crowd.peers[-1]
        await ann.ok("send", to={"user": bob.user}, key="k", kind="text", body="we are back")
        assert (await bob.event("msg"))["body"] == "we are back"
