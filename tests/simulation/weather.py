"""What becomes of a call or a word on its way: chance, ruled by a seed and by how bad it is now."""

from __future__ import annotations

import random

from msgspec import Struct

from storage.errors import Unavailable

CALL_S = 0.004
"""A call there and back, on a good day; about twice that at most."""
SLOW_S = 2.0
"""The slowest call on a bad day that does not fail."""
GIVE_UP_S = 3.0
"""When a call that gets no answer is given up."""
LATE_S = 20.0
"""How much later a write may land that was given up."""
NEVER_LATE = frozenset({"keep_alive", "update", "forget"})
"""Calls to a store that does what came first, first: what was given up came at once or never."""


class Fate(Struct):
    """A call reaches its target (and lands or not), and is answered or fails.

    `lands_after_s`: it lands so long after the failure was told.
    """

    reach_s: float
    return_s: float
    lands: bool = True
    fails: Unavailable | None = None
    lands_after_s: float | None = None


class Weather:
    """Between one node and one store. `failing` and `slow` are the shares of calls that are so."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.failing = 0.0
        self.slow = 0.0
        self.calls = 0
        self.failed = 0

    def clear(self) -> None:
        self.failing = self.slow = 0.0

    def fate(self, name: str, *, writes: bool) -> Fate:
        rng = self._rng
        self.calls += 1
        reach, back = (rng.uniform(0.2, 1.0) * CALL_S for _ in range(2))
        if rng.random() < self.slow:
            reach, back = rng.uniform(0, SLOW_S), rng.uniform(0, SLOW_S)
        if rng.random() >= self.failing:
            return Fate(reach, back)
        self.failed += 1
        if rng.random() < 0.5:
            reach = rng.uniform(0, GIVE_UP_S)
        if not writes or rng.random() < 0.3:
            return Fate(reach, back, lands=False, fails=Unavailable(f"{name}: away"))
        doubt = Unavailable(f"{name}: no answer", applied=None)
        what = rng.choice(
            ["landed", "never"] if name in NEVER_LATE else ["landed", "never", "late"]
        )
        if what == "late":
            late = rng.uniform(0, 1) ** 3 * LATE_S
            return Fate(reach, back, lands=False, fails=doubt, lands_after_s=late)
        return Fate(reach, back, lands=what == "landed", fails=doubt)
