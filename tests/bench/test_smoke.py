"""Every case once, tiny, against real servers in processes of their own: do the counts add up?"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench import servers
from bench.cases import CASES
from bench.jobs import System
from bench.results import Report
from bench.run import Plan, Step, run
from bench.wire import Transport

MEMBERS = 10
GROUPS = 2
WINDOW_S = 0.3
PROFILED_S = 2.0
"""So long that some of the samples, one each 4 ms of CPU, are in what the test looks for."""


def tiny(
    names: Sequence[str],
    system: System,
    scratch: Path,
    transport: Transport = "ws",
    profile: Path | None = None,
    window_s: float = WINDOW_S,
) -> Report:
    """A run of one round with hardly anybody in it."""
    plan = Plan(
        cases=[CASES[name].smaller(MEMBERS, GROUPS) for name in names],
        systems=[system],
        rounds=1,
        window_s=window_s,
        transport=transport,
        nats=servers.find_nats(None),
        scratch=scratch,
        profile=profile,
    )
    steps: list[Step] = []
    report = run(plan, steps.append)
    assert [step.case.name for step in steps] == list(names)
    return report


def prove(report: Report, system: System) -> None:
    """Each case has a figure, and its count is what was sent times who should have got it."""
    for result in report.cases:
        assert result.failures == []
        (outcome,) = result.outcomes(system)
        assert result.values(system)[0] > 0
        if checks := outcome.checks:
            members = result.definition.smaller(MEMBERS, GROUPS).members
            assert checks.deliveries == checks.publishes * members > 0
            assert outcome.ack is not None
            assert 0 < outcome.ack.p50_ms <= outcome.ack.p99_ms


def test_parley_in_every_case(tmp_path: Path) -> None:
    prove(tiny(list(CASES), "parley", tmp_path), "parley")


def test_parley_over_tcp(tmp_path: Path) -> None:
    prove(tiny(["F1", "P2", "C"], "parley", tmp_path, "tcp"), "parley")


def test_the_naive_server(tmp_path: Path) -> None:
    prove(tiny(["F3", "P1", "M", "C"], "naive", tmp_path), "naive")


def test_the_floor(tmp_path: Path) -> None:
    prove(tiny(["F2", "P2"], "floor", tmp_path), "floor")


@pytest.mark.skipif(servers.find_nats(None) is None, reason="there is no nats-server")
def test_nats(tmp_path: Path) -> None:
    prove(tiny(["F3", "P2", "M"], "nats", tmp_path), "nats")


def test_a_profile_shows_where_the_window_went(tmp_path: Path) -> None:
    profile = tmp_path / "stacks"
    report = tiny(["P2"], "parley", tmp_path, profile=profile, window_s=PROFILED_S)
    prove(report, "parley")
    stacks = (tmp_path / "stacks-P2").read_text().splitlines()
    assert any("actors/" in stack for stack in stacks)
    assert all(int(stack.rpartition(" ")[2]) > 0 for stack in stacks)
    assert "by itself" in (tmp_path / "stacks-P2.txt").read_text()


def test_a_server_that_does_not_start_is_a_failure_with_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "nats-server"
    broken.write_text("#!/bin/sh\necho no licence >&2\nexit 3\n")
    broken.chmod(0o700)
    plan = Plan(cases=[CASES["F1"]], systems=["nats"], rounds=1, nats=str(broken))
    (result,) = run(plan, lambda step: None).cases
    assert result.rounds["nats"] == [None]
    assert result.failures == ["round 1, nats: the server did not start; nats said: no licence"]
    assert result.met is None


@pytest.mark.skipif(
    shutil.which("locust", path=Path(sys.executable).parent) is None, reason="no locust"
)
def test_the_locust_scenario_talks_and_hears(tmp_path: Path) -> None:
    data, file, statistics = tmp_path / "data", tmp_path / "tokens", tmp_path / "seen"
    file.write_text("\n".join(servers.make_users(data, 3)))
    with servers.serve("parley", template=data) as running:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "locust", "-f", "bench/locustfile.py", "--headless"),
                *("-u", "3", "-r", "3", "-t", "2s", "--only-summary", "--csv", str(statistics)),
                *("--host", f"ws://127.0.0.1:{running.port}/ws", "--tokens", str(file)),
            ],
            cwd=servers.ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "seen_stats.csv").read_text().splitlines()[1:]
    counts = {row.split(",")[1]: [int(n) for n in row.split(",")[2:4]] for row in rows}
    assert counts["hello"] == [3, 0]
    assert counts["send"][0] > 0
    assert counts["deliver"][0] >= counts["send"][0]
    assert all(failures == 0 for _, failures in counts.values())
