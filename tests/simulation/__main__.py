"""Many seeds, a report, and the way back to one of them.

    python -m tests.simulation --seeds 5000 [--start N] [--jobs 2]
    python -m tests.simulation --seed 4711 --trace

The order of sets of strings is part of a run, so it starts itself with a fixed PYTHONHASHSEED.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.plans import plan_of
from tests.simulation.world import Outcome, simulate

HASH_SEED = "0"
SHOWN_MAX = 5
"""Violations shown of one seed."""


def main() -> int:
    arguments = _arguments()
    if arguments.seed is not None:
        return _one(arguments.seed, trace=arguments.trace)
    return _many(arguments.start, arguments.seeds, arguments.jobs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first one")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--trace", action="store_true", help="all that happens in it")
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


def _many(start: int, count: int, jobs: int) -> int:
    seeds = range(start, start + count)
    began = time.monotonic()
    failed: list[int] = []
    faults: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    with ProcessPoolExecutor(jobs) as pool:
        outcomes = pool.map(_play, seeds) if jobs > 1 else map(_play, seeds)
        for done, outcome in enumerate(outcomes, 1):
            faults.update(outcome.faults)
            counts.update(outcome.counts)
            if outcome.wrong:
                failed.append(outcome.seed)
                print(f"\nseed {outcome.seed}: {len(outcome.wrong)} violations")
                for what in outcome.wrong[:SHOWN_MAX]:
                    print(f"  {what}")
            if sys.stdout.isatty() or done % 50 == 0 or done == count:
                took = time.monotonic() - began
                print(f"{done}/{count} seeds, {len(failed)} failed, {took:.0f} s", flush=True)
    print(f"faults: {sum(faults.values())} {dict(sorted(faults.items()))}")
    print(f"seen: {dict(sorted(counts.items()))}")
    print(f"failed: {failed or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        environment = {**os.environ, "PYTHONHASHSEED": HASH_SEED}
        os.execve(
            sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], environment
        )
    sys.exit(main())
