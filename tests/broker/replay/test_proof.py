"""The proof finds whatever is wrong with a history or with what a client saw."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.client import Message
from broker.replay.attendance import Tally
from broker.replay.latency import Latencies
from broker.replay.proof import Expected, Ledger, ProofFailed, View
from broker.replay.report import Report

HEAD = 6


def ledger() -> Ledger:
    """1 created by 1, 2 joined by 2, 3-5 said, 6 left by 2."""
    ledger = Ledger()
    ledger.write(Expected.system("created", 1))
    ledger.write(Expected.system("joined", 2))
    for number in (3, 4, 5):
        ledger.write(Expected(1, "text", f"m{number}"))
    ledger.write(Expected.system("left", 2))
    return ledger


def message(seq: int, **other: Any) -> Message:
    systems = {1: ("created", 1), 2: ("joined", 2), 6: ("left", 2)}
    if seq in systems:
        event, user = systems[seq]
        body: Any = {"event": event, "users": [user], "by": user}
        fields = {"sender": user, "kind": "system", "body": body}
    else:
        fields = {"sender": 1, "kind": "text", "body": f"m{seq}"}
    return Message(**{"conv": "g/1", "seq": seq, "ts": 0, **fields, **other})


def test_history_that_equals_the_log() -> None:
    ledger().check_history(message(seq) for seq in range(1, HEAD + 1))


@pytest.mark.parametrize(
    ("seqs", "why"),
    [
        ([1, 2, 3, 4, 5], "ends at seq 5"),
        ([], "ends at seq 0"),
        ([1, 2, 4, 3, 5, 6], "seq 4 follows 2"),
        ([1, 2, 3, 3, 4, 5, 6], "seq 3 follows 3"),
        ([1, 2, 3, 4, 5, 6, 7], "seq 7 is beyond"),
    ],
)
def test_history_that_lacks_doubles_or_reorders(seqs: list[int], why: str) -> None:
    with pytest.raises(ProofFailed, match=why):
        ledger().check_history(message(seq) for seq in seqs)


@pytest.mark.parametrize("wrong", [{"body": "m"}, {"sender": 9}, {"kind": "emoji"}])
def test_history_with_another_entry(wrong: dict[str, Any]) -> None:
    history = [message(seq, **(wrong if seq == 4 else {})) for seq in range(1, HEAD + 1)]
    with pytest.raises(ProofFailed, match=r"seq 4 is .* where the log has text 'm4' of user 1"):
        ledger().check_history(history)


def view(*due: int) -> View:
    view = View("ann", ledger())
    for number, seq in enumerate(due):
        (view.went if number % 2 else view.came)(seq)
    return view


def test_view_of_all_that_was_due() -> None:
    ann = view(2, 3, 5)
    for seq in (2, 3, 5, 6):
        ann.saw(message(seq))
    ann.check()
    assert ann.entries == 4


@pytest.mark.parametrize(
    ("seqs", "why"),
    [([2, 3, 5], "saw 2-3, 5-5, not 2-3, 5-6"), ([], "saw nothing"), ([2, 3, 4, 5, 6], "saw 2-6")],
)
def test_view_with_too_little_or_too_much(seqs: list[int], why: str) -> None:
    ann = view(2, 3, 5)
    for seq in seqs:
        ann.saw(message(seq))
    with pytest.raises(ProofFailed, match=why):
        ann.check()


def test_view_finds_repetitions_and_other_texts_at_once() -> None:
    ann = view(2)
    ann.saw(message(2))
    with pytest.raises(ProofFailed, match="seq 2 came after 2"):
        ann.saw(message(2))
    with pytest.raises(ProofFailed, match="seq 3 is text 'other'"):
        ann.saw(message(3, body="other"))


def test_who_goes_and_comes_at_once_saw_one_stretch() -> None:
    ann = view(2, 3, 4)
    for seq in (2, 3, 4, 5, 6):
        ann.saw(message(seq))
    ann.check()


@given(st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=200), st.floats(0.01, 1))
def test_quantiles_are_right_within_two_percent(times: list[float], share: float) -> None:
    latencies = Latencies()
    for seconds in times:
        latencies.add(seconds)
    rank = max(1, -(-int(share * 1e9) * len(times) // 10**9))
    exact = sorted(times)[min(rank, len(times)) - 1]
    neighbours = sorted(times)[max(rank - 2, 0) : rank + 1]
    found = latencies.quantile(share)
    assert any(found == pytest.approx(each, rel=0.02) for each in [exact, *neighbours])


def test_report_says_whether_it_is_proved() -> None:
    tally = Tally(messages=10, deliveries=50, began_at=1.0, ended_at=3.0)
    tally.latencies.add(0.25)
    good = Report.of(tally, rooms=1, persons=5, difference="")
    assert (good.messages_per_second, good.deliveries_per_second, good.proved) == (5, 25, True)
    assert good.p50_ms == 250
    bad = Report.of(tally, rooms=1, persons=5, difference="seq 4")
    assert not bad.proved
    assert '"difference": "seq 4"' in bad.json()
