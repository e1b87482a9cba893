"""Many seeds, a report, and the way back to one of them.

    python -m tests.simulation --seeds 5000 [--start N] [--jobs 2] [--report FILE]
    python -m tests.simulation --seed 4711 --trace

The order of sets of strings is part of a run, so it starts itself with a fixed PYTHONHASHSEED.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.faults.cluster.report import revision
from tests.simulation.plans import plan_of
from tests.simulation.report import Run, Tally, write_report
from tests.simulation.world import Outcome, simulate

HASH_SEED = "0"
SHOWN_MAX = 5
"""Violations shown of one seed."""


def main() -> int:
    arguments = _arguments()
    if arguments.seed is not None:
        return _one(arguments.seed, trace=arguments.trace)
    seeds = range(arguments.start, arguments.start + arguments.seeds)
    of = revision()
    tally = _many(seeds, arguments.jobs)
    if arguments.report:
        write_report(arguments.report, Run(tally, of=of, command=shlex.join(sys.argv[1:])))
    return 1 if tally.failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first one")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--trace", action="store_true", help="all that happens in it")
    parser.add_argument("--report", type=Path, metavar="FILE", help="enter the run into a page")
    return parser.parse_args()


def _one(seed: int, *, trace: bool) -> int:
    outcome = simulate(seed, plan_of(seed), keep_trace=trace)
    for line in outcome.trace or ():
        print(line)
    print(f"seed {seed}, trace {outcome.trace_hash}, {plan_of(seed)}")
    print(outcome.faults, outcome.counts)
    for what in outcome.wrong:
        print(f"  {what}")
    return 1 if outcome.wrong else 0


def _play(seed: int) -> Outcome:
    return simulate(seed, plan_of(seed))


def _many(seeds: range, jobs: int) -> Tally:
    tally = Tally(seeds)
    with ProcessPoolExecutor(jobs) as pool:
        outcomes = pool.map(_play, seeds) if jobs > 1 else map(_play, seeds)
        for done, outcome in enumerate(outcomes, 1):
            tally.add(outcome)
            if outcome.wrong:
                print(f"\nseed {outcome.seed}: {len(outcome.wrong)} violations")
                for what in outcome.wrong[:SHOWN_MAX]:
                    print(f"  {what}")
            if sys.stdout.isatty() or done % 50 == 0 or done == len(seeds):
                took = f"{tally.took_s():.0f} s"
                print(f"{done}/{len(seeds)} seeds, {len(tally.failed)} failed, {took}", flush=True)
    print(f"faults: {tally.faults.total()} {dict(sorted(tally.faults.items()))}")
    print(f"seen: {dict(sorted(tally.counts.items()))}")
    print(f"failed: {tally.failed or 'none'}")
    return tally


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        environment = {**os.environ, "PYTHONHASHSEED": HASH_SEED}
        os.execve(
            sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], environment
        )
    sys.exit(main())
