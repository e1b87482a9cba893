"""How long to wait before the next try: full jitter, so that many clients never come at once."""

from __future__ import annotations

import random


def full_jitter(attempt: int, *, base: float, cap: float) -> float:
    """Seconds to wait before try number `attempt` + 1: anything from none to the bound.

    The bound doubles from `base` with every attempt and stays at `cap`.
    """
    # An exponent this large is past any cap; larger ones would overflow a float.
    bound = min(cap, base * 2.0 ** min(attempt, 64))
    return random.uniform(0, bound)
