"""From rounds to a table: medians, ratios, verdicts, and what must not be hidden."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench import report, results
from bench.jobs import Checks, Latency, Outcome, System
from bench.machine import Machine
from bench.results import CaseResult, Report, Setting

SETTING = Setting(
    command="parley bench F1",
    started="2026-01-02T03:04:05+00:00",
    revision="abc1234",
    versions={"python": "3.11.1"},
    machine=Machine(
        cpu="a processor", cores=2, pinned=True, memory_mib=1_000, system="Linux", python="3.11.1"
    ),
    storage="ext4",
    transport="ws",
    rounds=3,
    window_s=4.0,
)


def outcome(rate: float, *, load_cpu_s: float = 1.0, problems: list[str] | None = None) -> Outcome:
    """Two seconds of the server's CPU time in a window of four."""
    return Outcome(
        count=int(rate * 2),
        elapsed_s=4.0,
        server_cpu_s=2.0,
        load_cpu_s=load_cpu_s,
        ack=Latency(samples=9, p50_ms=1.234, p99_ms=5.6),
        checks=Checks(publishes=1, deliveries=1_234, parsed_members=2, problems=problems or []),
    )


def a_case(name: str, rates: dict[System, list[float]]) -> CaseResult:
    rounds = {system: [outcome(rate) for rate in each] for system, each in rates.items()}
    return CaseResult(case=name, rounds=dict(rounds))


def a_report(*cases: CaseResult) -> Report:
    return Report(setting=SETTING, cases=list(cases))


def row_of(text: str, name: str) -> list[str]:
    """The cells of a case's row in the main table."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} | "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_row_quotes_medians_and_the_median_of_the_rounds_ratios() -> None:
    # The second round met a machine at half its pace: the ratio does not care.
    result = a_case("F1", {"parley": [2e6, 1e6, 2.2e6], "nats": [0.5e6, 0.25e6, 0.55e6]})
    cells = row_of(report.markdown(a_report(result)), "F1")
    assert cells[3:] == ["2 M", "500 k", "≥ 2.5 × nats", "4.00 ×", "met"]


def test_a_missed_target_stands_out() -> None:
    result = a_case("F1", {"parley": [1e6], "nats": [1e6]})
    assert row_of(report.markdown(a_report(result)), "F1")[-1] == "**missed**"


def test_without_the_baseline_nothing_is_claimed() -> None:
    result = a_case("F1", {"parley": [9e6]})
    assert result.met is None
    assert row_of(report.markdown(a_report(result)), "F1")[-2:] == ["–", "not measured"]


def test_rounds_are_compared_with_their_own_counterpart() -> None:
    result = CaseResult(
        case="F1",
        rounds={
            "parley": [outcome(100), outcome(300)],
            "nats": [None, outcome(100)],
        },
    )
    assert result.ratio("nats") == 3.0


@pytest.mark.parametrize(("kib", "met"), [(40_000.0, True), (40_001.0, False)])
def test_memory_must_stay_below_its_target(kib: float, met: bool) -> None:
    idle = Outcome(count=5_000, elapsed_s=1.0, server_cpu_s=1.0, load_cpu_s=1.0, private_kib=kib)
    result = CaseResult(case="M", rounds={"parley": [idle]})
    assert result.met is met
    assert row_of(report.markdown(a_report(result)), "M")[4] == "≤ 8"


def test_a_load_client_that_was_the_bottleneck_is_named() -> None:
    result = CaseResult(case="P1", rounds={"floor": [outcome(1.0, load_cpu_s=3.9)]})
    assert "P1, floor: the load client was the bottleneck" in report.markdown(a_report(result))
    relaxed = CaseResult(case="P1", rounds={"floor": [outcome(1.0, load_cpu_s=2.0)]})
    assert "bottleneck" not in report.markdown(a_report(relaxed))


def test_failures_and_unproven_counts_are_told() -> None:
    result = CaseResult(
        case="F2",
        rounds={"parley": [outcome(1.0, problems=["7 deliveries of 8"])], "naive": [None]},
        failures=["round 1, parley: 7 deliveries of 8"],
    )
    text = report.markdown(a_report(result))
    assert "- F2, round 1, parley: 7 deliveries of 8" in text
    assert "| **no** |" in text


def test_that_nats_stores_nothing_is_said_beside_its_figures() -> None:
    text = report.markdown(a_report(a_case("F1", {"parley": [1.0], "nats": [1.0]})))
    assert "| NATS (stores nothing) |" in text


def test_a_profiled_run_says_so() -> None:
    profiled = msgspec.structs.replace(SETTING, profiled=True)
    text = report.markdown(Report(setting=profiled, cases=[]))
    assert "no figures to quote" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (3.664, "3.66"),
        (999.0, "999"),
        (83_249.0, "83.2 k"),
        (999_600.0, "1000 k"),
        (2_310_000.0, "2.31 M"),
    ],
)
def test_amounts_have_three_figures(value: float | None, text: str) -> None:
    assert report.amount(value) == text


def test_a_result_file_reads_back_and_carries_its_summary(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    written = a_report(a_case("F1", {"parley": [2e6], "nats": [1e6]}))
    results.save(written, file)
    assert results.load(file) == written
    (summary,) = msgspec.json.decode(file.read_bytes())["summary"]
    assert (summary["reached"], summary["met"], summary["target_than"]) == (2.0, False, "nats")


DOCUMENT = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"


def test_the_document_keeps_what_stands_around_the_generated_part() -> None:
    made = a_report(a_case("C", {"parley": [7_000]}))
    once = report.update(DOCUMENT, made)
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    assert "old" not in once
    assert report.markdown(made) in once
    assert report.update(once, made) == once


@pytest.mark.parametrize("mark", [report.BEGIN, report.END])
def test_a_document_without_marks_is_left_alone(mark: str) -> None:
    with pytest.raises(ValueError, match="marks"):
        report.update(DOCUMENT.replace(mark, ""), a_report())
