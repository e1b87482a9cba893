"""The faults of real processes, chosen by a seed. What one of them breaks, it mends again.

A target has one fault at a time; different ones may suffer together.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random

import trio

from tests.faults.cluster.site import LEASE_MS, Site
from tests.helpers.servers import Server
from tests.histories.record import Record

GAP_MEAN_S = 4.0
PAUSE_MAX_S = 2.5 * LEASE_MS / 1000


class Storm:
    """`rage` makes so many faults and returns when everything runs again."""

    def __init__(self, site: Site, rng: Random, record: Record) -> None:
        self._site = site
        self._rng = rng
        self._record = record
        self._busy: set[Server] = set()
        self.seen: Counter[str] = Counter()
        self.log: list[str] = []

    async def rage(self, faults: int, gap_mean_s: float = GAP_MEAN_S) -> None:
        async with trio.open_nursery() as nursery:
            while self.seen.total() < faults:
                await trio.sleep(self._rng.expovariate(1 / gap_mean_s))
                fault, target = self._choose()
                if target in self._busy:
                    continue
                name = f"{fault.__name__} {type(target).__name__}"
                self.seen[name] += 1
                self._say(f"{name} {target.name}")
                nursery.start_soon(self._one, fault, target)

    def _choose(self) -> tuple[Callable[[Server], Awaitable[None]], Server]:
        site, rng = self._site, self._rng
        what = rng.choices(("node", "redis", "cassandra"), (6, 3, 1))[0]
        if what == "node":
            return rng.choice([self.kill, self.pause, self.restart]), rng.choice(site.nodes)
        if what == "redis":
            return rng.choice([self.kill, self.pause, self.flush]), site.redis
        return rng.choice([self.kill, self.pause]), rng.choice(site.cassandra.nodes)

    async def _one(self, fault: Callable[[Server], Awaitable[None]], target: Server) -> None:
        self._busy.add(target)
        await fault(target)
        self._busy.discard(target)
        self._say(f"  {target.name} is well again")

    def _say(self, what: str) -> None:
        self.log.append(f"{self._record.now():8.2f} {what}")
        self._record.note(what)

    async def kill(self, target: Server) -> None:
        """`kill -9`, and started again after a while."""
        await trio.to_thread.run_sync(target.kill)
        await trio.sleep(self._rng.choice([0.0, self._rng.uniform(0, PAUSE_MAX_S)]))
        await trio.to_thread.run_sync(target.start)

    async def pause(self, target: Server) -> None:
        """SIGSTOP and SIGCONT: shortly, or for longer than a lease."""
        target.signal(signal.SIGSTOP)
        await trio.sleep(self._rng.choice([0.3, 1.0, 1.0]) * self._rng.uniform(0, PAUSE_MAX_S))
        target.signal(signal.SIGCONT)

    async def restart(self, target: Server) -> None:
        """SIGTERM, an orderly end, and a start."""
        await trio.to_thread.run_sync(target.stop)
        await trio.to_thread.run_sync(target.start)

    async def flush(self, target: Server) -> None:
        """FLUSHALL."""
        await trio.to_thread.run_sync(self._site.flush_redis)
