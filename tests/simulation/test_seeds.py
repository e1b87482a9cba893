"""Seeds of the simulated cluster: some of every kind in each test run, thousands by the command.

A seed is first of all a way into unlikely corners; which ones change with every change of the code.
What a seed found once has a test of its own where the fault was.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.plans import plan_of
from tests.simulation.world import Plan, simulate

SEEDS = 60
PER_TEST = 10


@pytest.mark.parametrize("start", range(0, SEEDS, PER_TEST))
def test_nothing_goes_wrong_whatever_fails(start: int) -> None:
    for seed in range(start, start + PER_TEST):
        outcome = simulate(seed, plan_of(seed))
        assert not outcome.wrong, f"seed {seed}: {outcome.wrong[:5]}"
        assert outcome.counts["acknowledged"] > 50, "it has to do something"


def test_one_process_alone_too() -> None:
    for seed in range(5):
        plan = Plan(nodes=1, faults=("kill", "drain", "pause"))
        outcome = simulate(seed, plan)
        assert not outcome.wrong, f"seed {seed}: {outcome.wrong[:5]}"


def test_a_seed_is_always_the_same_run() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seed", "3"]
    said = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)
    ]
    assert said[0] == said[1]
    assert "trace" in said[0]


def test_in_this_process_too() -> None:
    if os.environ.get("PYTHONHASHSEED", "random") == "random":
        pytest.skip("the order of sets of strings is chance here")
    assert simulate(4, plan_of(4)).trace_hash == simulate(4, plan_of(4)).trace_hash
