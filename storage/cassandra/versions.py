"""Versions tell which of two writes is the later one: first by the epoch, then by the commit.

No clock decides between two writers; a clock only makes a process that has no epochs count on from
where its last life stopped.
"""

from __future__ import annotations

import time

COMMIT_BITS = 40
"""Milliseconds of 34 years; there may be as many commits."""
_ORIGIN_MS = 1_735_689_600_000
"""2025 begins: milliseconds since 1970 would not fit."""


class Versions:
    """Counts the commits of one store object, failed ones too."""

    def __init__(self) -> None:
        self._count = 0

    def next(self) -> int:
        """The number of another commit, above all given out or seen before."""
        self._count = max(self._count + 1, time.time_ns() // 1_000_000 - _ORIGIN_MS)
        return self._count

    def saw(self, version: int) -> None:
        """A version that is stored: from now on numbers are above it."""
        self._count = max(self._count, version & ((1 << COMMIT_BITS) - 1))


def version_of(epoch: int, number: int) -> int:
    """The version of a commit under an epoch; also the timestamp of what it writes."""
    return (epoch << COMMIT_BITS) | number


def epoch_of(version: int) -> int:
    """The epoch in a version."""
    return version >> COMMIT_BITS
