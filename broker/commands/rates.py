"""How often one address may do something: token buckets, bounded in number.

Counted in this process, or for all nodes where they share what can be forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import ceil

from actors.faults import log_outage
from storage.errors import Unavailable
from storage.shared import Ephemeral

ADDRESSES_MAX = 10_000
"""Beyond, the address that was quiet for longest is forgotten, which is to its advantage."""

ROUNDING = 1e-6


class RateLimit:
    """`per_minute` times a minute for each address, all of them at once after a rest; 0: no limit.

    `now` is a clock in seconds that only goes forward.
    """

    def __init__(self, per_minute: int, now: Callable[[], float]) -> None:
        self._burst = float(per_minute)
        self._per_s = per_minute / 60
        self._now = now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_ms(self, address: str) -> int:
        """Take one: 0, or (nothing taken) in how many milliseconds there will be one."""
        if not self._burst:
            return 0
        now = self._now()
        left, since = self._buckets.get(address, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._per_s)
        # Whoever waited as told must not fail by what floating point has lost.
        wait_ms = 0 if left > 1 - ROUNDING else ceil((1 - left) / self._per_s * 1000)
        self._buckets[address] = (left if wait_ms else left - 1, now)
        self._buckets.move_to_end(address)
        if len(self._buckets) > ADDRESSES_MAX:
            self._buckets.popitem(last=False)
        return wait_ms


class SharedLimit:
    """`RateLimit` for all nodes together; where they cannot be asked, for this one alone."""

    def __init__(
        self, what: str, per_minute: int, now: Callable[[], float], shared: Ephemeral | None = None
    ) -> None:
        self._what = what
        self._per_minute = per_minute
        self._shared = shared
        self._own = RateLimit(per_minute, now)

    async def wait_ms(self, address: str) -> int:
        """As of `RateLimit`."""
        if self._shared is not None and self._per_minute:
            try:
                return await self._shared.wait_ms(self._what, address, per_minute=self._per_minute)
            except Unavailable as error:
                log_outage(error)
        return self._own.wait_ms(address)
