"""From a cluster's figures to its tables: goals, verdicts, spreads, and what must not be hidden."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.cluster import report, results
from bench.cluster.cases import CASES
from bench.cluster.results import CaseResult, ClusterReport, Figure, Shares, Target
from broker.cli import bench as cli
from broker.cli.main import main
from tests.bench.test_report import SETTING


def a_report(*cases: CaseResult) -> ClusterReport:
    return ClusterReport(setting=SETTING, cases=list(cases))


def shown(*targets: Target) -> list[str]:
    """The last three cells of the first target's row."""
    text = report.markdown(a_report(CaseResult(case="S9", load="much", targets=list(targets))))
    line = next(line for line in text.splitlines() if line.startswith("| S9 | much"))
    return [cell.strip() for cell in line.strip("|").split("|")][3:]


@pytest.mark.parametrize(
    ("target", "cells"),
    [
        (Target(what="a", value=4, reached=5.5, times=True), ["≥ 4 ×", "5.50 ×", "met"]),
        (Target(what="a", value=4, reached=3.99, times=True), ["≥ 4 ×", "3.99 ×", "**missed**"]),
        (
            Target(what="a", value=50, reached=50.1, unit="ms", at_most=True),
            ["≤ 50 ms", "50.10 ms", "**missed**"],
        ),
        (Target(what="a", value=None, reached=0.7, unit="ms"), ["–", "0.70 ms", ""]),
        (Target(what="a", value=4, reached=None, times=True), ["≥ 4 ×", "–", "not measured"]),
    ],
)
def test_a_target_says_what_was_wanted_and_what_was_reached(
    target: Target, cells: list[str]
) -> None:
    assert shown(target) == cells


def test_what_was_not_measured_or_failed_is_missed_and_a_mere_figure_never_is() -> None:
    wanted = Target(what="a", value=1, reached=None)
    told = Target(what="a", value=None, reached=None)
    assert CaseResult(case="S9", load="", targets=[wanted]).missed
    assert CaseResult(case="S9", load="", failures=["it fell over"]).missed
    assert not CaseResult(case="S9", load="", targets=[told]).missed


def test_a_figure_is_the_median_of_its_rounds_with_its_spread() -> None:
    figure = Figure(name="one: publishes", unit="publishes/s", rounds=[3_000, 1_000, 2_000])
    text = report.markdown(a_report(CaseResult(case="S9", load="much", figures=[figure])))
    assert "| S9 | one: publishes | 2 k | publishes/s | 1 k – 3 k |" in text


def test_failures_and_shares_are_told() -> None:
    share = Shares(variant="2 workers", cores={"node 1": 0.5, "Cassandra": 0.25})
    result = CaseResult(case="S9", load="much", shares=[share], failures=["it fell over"])
    text = report.markdown(a_report(result))
    assert "- S9: it fell over" in text
    assert "| case | cores used by | node 1 | Cassandra |" in text
    assert "| S9 | 2 workers | 50% | 25% |" in text


def test_the_document_keeps_what_stands_around_the_generated_part(tmp_path: Path) -> None:
    file = tmp_path / "benchmarks.md"
    file.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    made = a_report(CaseResult(case="S9", load="much", notes=["so it is"]))
    report.update_file(file, made)
    text = file.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "- S9: so it is" in text


def test_an_earlier_result_is_reported_and_checked_without_measuring(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    target = Target(what="pages", value=1.5, reached=1.6, at_most=True, times=True)
    results.save(a_report(CaseResult(case="S5", load="much", targets=[target])), file)
    told = CliRunner().invoke(main, ["bench", "--cluster", "--from", str(file)])
    assert told.exit_code == 0, told.output
    assert "| S5 | much | pages | ≤ 1.5 × | 1.60 × | **missed** |" in told.output
    checked = CliRunner().invoke(main, ["bench", "S5", "--from", str(file), "--check"])
    assert checked.exit_code == 1


@pytest.mark.parametrize("arguments", [["S1a", "F1"], ["--cluster", "C"], ["S2", "--only", "nats"]])
def test_what_cannot_be_run_together_is_refused(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, ["bench", *arguments]).exit_code == 2


def test_the_command_knows_the_cases_that_there_are() -> None:
    assert list(cli.CLUSTER_NAMES) == list(CASES)
