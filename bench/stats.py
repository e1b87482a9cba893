"""Numbers about numbers: percentiles, medians, ratios. No I/O."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from bench.jobs import Latency


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of values in ascending order; `share` is 0 to 1.

    Raises `ValueError` for no values.
    """
    if not ordered:
        raise ValueError("no values")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def latency(nanoseconds: list[int]) -> Latency | None:
    """Percentiles in milliseconds; None where nothing was sampled."""
    if not nanoseconds:
        return None
    ordered = sorted(nanoseconds)
    return Latency(
        samples=len(ordered),
        p50_ms=percentile(ordered, 0.5) / 1e6,
        p99_ms=percentile(ordered, 0.99) / 1e6,
    )


def median(values: Sequence[float]) -> float | None:
    """The median, or None of nothing."""
    return statistics.median(values) if values else None


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """The median of the rounds' own ratios: what slows a whole round down falls out.

    Rounds beyond the shorter of the two do not count; None where there are none.
    """
    return median([a / b for a, b in zip(ours, theirs, strict=False) if b > 0])
