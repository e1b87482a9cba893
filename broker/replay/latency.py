"""How long things took: a histogram of bounded size, exact to a percent. No I/O, no clock."""

from __future__ import annotations

import math

_STEP = math.log(1.01)
_SMALLEST_SECONDS = 1e-6
_BUCKETS = 2_600
"""From a microsecond up to two days, each bucket a percent wider than the one before."""


class Latencies:
    """Times in seconds, counted; quantiles come out within a percent."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0
        self.largest_seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        bucket = int(math.log(max(seconds, _SMALLEST_SECONDS) / _SMALLEST_SECONDS) / _STEP)
        self._counts[min(bucket, _BUCKETS - 1)] += 1
        self.count += 1
        self.largest_seconds = max(self.largest_seconds, seconds)

    def quantile(self, share: float) -> float:
        """The seconds that this share (0 to 1) of all stayed within; 0 if there are none."""
        rank = math.ceil(share * self.count)
        passed = 0
        for bucket, count in enumerate(self._counts):
            passed += count
            if passed >= rank and count:
                upper = _SMALLEST_SECONDS * math.exp((bucket + 1) * _STEP)
                return min(upper, self.largest_seconds)
        return 0.0
