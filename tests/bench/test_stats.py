"""Percentiles and medians, against the definitions."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import stats

VALUES = st.lists(st.floats(0.001, 1e9), min_size=1, max_size=200)


@given(VALUES, st.floats(0.0, 1.0))
def test_a_percentile_is_a_value_that_the_share_does_not_exceed(
    values: list[float], share: float
) -> None:
    ordered = sorted(values)
    found = stats.percentile(ordered, share)
    assert sum(value <= found for value in ordered) >= share * len(ordered)
    assert sum(value < found for value in ordered) < max(1.0, share * len(ordered))


def test_percentiles_of_a_hundred() -> None:
    hundred = list(range(1, 101))
    assert [stats.percentile(hundred, share) for share in (0, 0.5, 0.99, 1)] == [1, 50, 99, 100]


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        stats.percentile([], 0.5)


def test_latencies_come_in_nanoseconds_and_leave_in_milliseconds() -> None:
    found = stats.latency([3_000_000, 1_000_000, 2_000_000])
    assert found is not None
    assert (found.samples, found.p50_ms, found.p99_ms) == (3, 2.0, 3.0)
    assert stats.latency([]) is None


@given(VALUES, st.floats(0.1, 10))
def test_a_slow_round_that_slows_both_leaves_the_ratio(paces: list[float], ratio: float) -> None:
    found = stats.median_ratio([pace * ratio for pace in paces], paces)
    assert found is not None
    assert math.isclose(found, ratio)


def test_rounds_without_a_counterpart_do_not_count() -> None:
    assert stats.median_ratio([2.0, 9.0], [1.0]) == 2.0
    assert stats.median_ratio([2.0], []) is None
    assert stats.median_ratio([2.0], [0.0]) is None
    assert stats.median([1.0, 5.0, 2.0]) == statistics.median([1.0, 5.0, 2.0]) == 2.0
