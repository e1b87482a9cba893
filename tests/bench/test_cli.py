"""`parley bench` as it is typed: what it refuses, what it reports without measuring."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import results
from bench.cases import ALL, CASES
from broker.cli import bench as cli
from broker.cli.main import main
from tests.bench.test_report import a_case, a_report


def test_an_earlier_result_is_reported_without_measuring(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    results.save(a_report(a_case("C", {"parley": [5_000]})), file)
    shown = CliRunner().invoke(main, ["bench", "--from", str(file)])
    assert shown.exit_code == 0
    assert "| C | " in shown.output
    checked = CliRunner().invoke(main, ["bench", "--from", str(file), "--check"])
    assert checked.exit_code == 1
    assert "targets were missed" in checked.output


def test_a_result_file_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text("{}")
    refused = CliRunner().invoke(main, ["bench", "--from", str(file)])
    assert refused.exit_code == 2
    assert "not a result file" in refused.output


def test_an_installed_copy_says_that_it_needs_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.broker, "__file__", str(tmp_path / "broker" / "__init__.py"))
    refused = CliRunner().invoke(main, ["bench", "C"])
    assert refused.exit_code == 1
    assert "checkout of the repository" in refused.output


def test_the_command_knows_the_cases_and_systems_that_there_are() -> None:
    assert list(cli.CASE_NAMES) == list(CASES)
    assert cli.SYSTEM_NAMES == ALL


def test_the_command_in_a_report_names_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["parley", "bench", "F1", "--nats", "/x/nats-server", "--json=/y", "--rounds", "5"]
    monkeypatch.setattr("sys.argv", said)
    assert cli._own_command() == "parley bench F1 --rounds 5"
