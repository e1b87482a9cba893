"""The report's figures: who waited how long around a fault, and what was wrong, in plain sight."""

from __future__ import annotations

import pytest

from tests.faults.cluster.harm import FAULTS, Fault
from tests.faults.cluster.report import quantile, report, waits_of
from tests.faults.cluster.story import Outcome
from tests.histories.checker import Truth
from tests.histories.record import Intent, Record


def said(begun: float, acknowledged: float, user: int = 9) -> Intent:
    return Intent(
        user, "send", "g/1", f"k{begun}", {}, seq=1, begun_at=begun, acknowledged_at=acknowledged
    )


def test_waits_are_of_what_was_begun_in_a_faults_time_or_just_after() -> None:
    fault = Fault("node killed", 10.0, ended=14.0)
    intents = [said(9.0, 10.5), said(11.0, 15.0), said(12.0, 13.0), said(17.0, 17.5), said(18, 19)]
    waits = waits_of(fault, intents)
    assert waits is not None
    assert waits.first_s == 3.0
    assert waits.all_s == (0.5, 1.0, 4.0)
    assert waits_of(fault, [said(1.0, 2.0), Intent(9, "send", "g/1", "k", {})]) is None


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 2), (0.75, 3), (0.95, 4), (1, 4)])
def test_a_quantile_is_one_of_the_values(share: float, expected: int) -> None:
    assert quantile([1, 2, 3, 4], share) == expected


async def test_the_page_says_what_was_done_and_what_was_wrong() -> None:
    record = Record()
    record.counts["acknowledged"] = 1_234
    record.intents = [said(11.0, 15.0), said(11.0, 99.0, user=1)]
    fault = Fault("Redis flushed", 10.0, ended=12.0, unavailable=3)
    truth = Truth(logs={"g/1": [b"", b""]}, members={})
    outcome = Outcome(record, [fault], [], truth, frozenset({9}), 120.0, 1.5)
    page = report(outcome, command="python -m x", seed=7, cassandra=3, of="abc")
    assert "1 faults in 2 minutes: **no violation**" in page
    assert "| Redis flushed | FLUSHALL | 1 | 2.0 | 5.00, 5.0 | 4.00, 4.0 | 3 |" in page
    assert "with nothing else wrong" not in page
    assert "1,234" in page
    assert "seed 7" in page
    alone = Fault("node paused", 10.0, ended=12.0, alone=True)
    outcome.faults.append(alone)
    page = report(outcome, command="python -m x", seed=7, cassandra=3, of="abc")
    first, second = page.index("with nothing else wrong"), page.index("at once, so that")
    assert first < page.index("| node paused |") < second < page.index("| Redis flushed |")
    outcome.wrong.append("an entry was lost")
    page = report(outcome, command="python -m x", seed=7, cassandra=3, of="abc")
    assert "**1 violations**" in page
    assert "- an entry was lost" in page


def test_each_kind_of_fault_says_what_it_is() -> None:
    assert all(kind.means and kind.share > 0 for kind in FAULTS.values())
