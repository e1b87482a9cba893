"""The long run: `python -m tests.faults.cluster --faults 200 --report FILE`."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from tests.faults.cluster.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.cluster")
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cassandras", type=int, default=3, help="nodes of Cassandra")
    parser.add_argument("--report", type=Path, help="a file for the report, in Markdown")
    given = parser.parse_args()
    with TemporaryDirectory(prefix="parley-faults-", ignore_cleanup_errors=True) as folder:
        playing = partial(
            run, Path(folder), seed=given.seed, faults=given.faults, cassandras=given.cassandras
        )
        result = trio.run(playing)
    report = result.markdown()
    if given.report:
        given.report.write_text(report)
    print(report.split("```")[0])
    return 1 if result.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
