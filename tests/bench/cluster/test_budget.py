"""A budget of CPU time: found in what is mounted, kept to by the kernel, and gone afterwards."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import machine
from bench.cluster import budget
from bench.cluster.budget import Controller

WATCHED_S = 1.0


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """A process that would use a whole core."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        yield process
        process.kill()


def _here() -> Controller | None:
    try:
        return budget.controller(budget.MOUNTS.read_text())
    except OSError:
        return None


def test_the_first_version_is_a_mount_of_its_own(tmp_path: Path) -> None:
    lines = f"tmpfs / tmpfs rw 0 0\ncgroup {tmp_path} cgroup rw,relatime,cpu,cpuacct 0 0\n"
    assert budget.controller(lines) == Controller(tmp_path, 1)


def test_the_second_version_is_asked_for_the_controller(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory\n")
    found = budget.controller(f"cgroup2 {tmp_path} cgroup2 rw 0 0\n")
    assert found == Controller(tmp_path, 2)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu"
    found.limit(tmp_path, 0.4)
    assert (tmp_path / "cpu.max").read_text() == "4000 10000"


def test_without_a_controller_for_cpu_time_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("hugetlb\n")
    lines = f"cgroup /none cgroup rw,cpuset 0 0\ncgroup2 {tmp_path} cgroup2 rw 0 0\n"
    with pytest.raises(OSError, match="no control groups for CPU time"):
        budget.controller(lines)


def test_where_groups_cannot_be_made_it_says_where(tmp_path: Path) -> None:
    away = tmp_path / "away"
    with pytest.raises(PermissionError, match=str(away)):
        budget.controller(f"cgroup {away} cgroup rw,cpu 0 0\n")


@pytest.mark.skipif(_here() is None, reason="control groups cannot be made here")
def test_a_process_gets_its_budget_and_no_more(busy: subprocess.Popen[bytes]) -> None:
    found = _here()
    assert found
    before = set(found.root.iterdir())
    with budget.held_to(found, 0.1, [busy.pid]):
        started = machine.cpu_seconds(busy.pid)
        time.sleep(WATCHED_S)
        used = machine.cpu_seconds(busy.pid) - started
    assert 0 < used < 0.2 * WATCHED_S
    assert set(found.root.iterdir()) == before
    assert busy.poll() is None


@pytest.mark.skipif(_here() is None, reason="control groups cannot be made here")
def test_a_process_that_ended_meanwhile_leaves_nothing(busy: subprocess.Popen[bytes]) -> None:
    found = _here()
    assert found
    before = set(found.root.iterdir())
    with budget.held_to(found, 0.1, [busy.pid]):
        busy.kill()
        busy.wait()
    assert set(found.root.iterdir()) == before
