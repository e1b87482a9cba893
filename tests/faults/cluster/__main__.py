"""The long run, and its report.

    python -m tests.faults.cluster --faults 200 --report FILE [--seed N] [--cassandra 3] [--alone 2]

Servers and nodes keep what they said, and the clients' whole trace is written, in `--keep FOLDER`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from pathlib import Path

import trio

from tests.faults.cluster.machines import BROKER
from tests.faults.cluster.report import report, revision
from tests.faults.cluster.story import EVERY_KIND, Outcome, alone_of, play, storm_of

SHOWN_MAX = 10
HASTY = (sys.executable, "-m", "tests.faults.cluster.hasty")


def main() -> int:
    arguments = _arguments()
    of = revision()
    with tempfile.TemporaryDirectory(prefix="parley-faults-", ignore_cleanup_errors=True) as made:
        folder = Path(arguments.keep or made)
        outcome = trio.run(_play, arguments, folder)
        if arguments.keep:
            (folder / "trace").write_text("\n".join(outcome.record.trace or ()))
    if arguments.report:
        options = [shlex.quote(word) for word in _without_keep(sys.argv[1:])]
        command = " ".join([".venv/bin/python -m tests.faults.cluster", *options])
        page = report(
            outcome, command=command, seed=arguments.seed, cassandra=arguments.cassandra, of=of
        )
        arguments.report.write_text(page)
    print(outcome.record.counts)
    for what in outcome.wrong[:SHOWN_MAX]:
        print(f"  {what}")
    print(f"{len(outcome.faults)} faults, {len(outcome.wrong)} violations")
    return 1 if outcome.wrong else 0


async def _play(arguments: argparse.Namespace, folder: Path) -> Outcome:
    began = time.monotonic()

    def told(line: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {line}", flush=True)

    kinds = arguments.only or EVERY_KIND
    alone = alone_of(arguments.alone, kinds, told)
    together = max(0, arguments.faults - len(alone))
    return await play(
        folder,
        arguments.seed,
        [*alone, storm_of(together, kinds, told, until_wrong=arguments.until_wrong)],
        cassandra=arguments.cassandra,
        command=HASTY if arguments.hasty else BROKER,
        told=told,
    )


def _without_keep(words: list[str]) -> list[str]:
    """Where files were kept is nobody's business."""
    kept = [n for n, word in enumerate(words) if word == "--keep"]
    return [word for n, word in enumerate(words) if n not in kept and n - 1 not in kept]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.cluster")
    parser.add_argument("--faults", type=int, default=20, help="how many")
    parser.add_argument(
        "--alone", type=int, default=0, metavar="N", help="each kind N times by itself first"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--cassandra", "--cassandras", type=int, default=1, metavar="N", help="nodes of Cassandra"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a page about it")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep logs and a trace there")
    parser.add_argument("--only", action="append", choices=EVERY_KIND, help="kinds of faults")
    parser.add_argument(
        "--until-wrong", action="store_true", help="end when a client has noticed something"
    )
    parser.add_argument(
        "--hasty", action="store_true", help="with broken nodes, which must be found out"
    )
    arguments = parser.parse_args()
    if arguments.keep and arguments.keep.exists() and any(arguments.keep.iterdir()):
        parser.error(f"--keep: {arguments.keep} is not empty")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
