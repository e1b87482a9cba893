"""What seeds have found, as a page for people: each run is a row, and keeps those of other runs."""

from __future__ import annotations

import re
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct, field

from tests.simulation.world import Outcome

RUNS_MAX = 20
"""Rows on the page; the oldest go."""
HEAD = """# Seeds of a simulated cluster

The broker's own actors on a simulated network, store and clock: a seed decides who says what and
what fails when, and is the same run again whenever it is played. Made by a command, not by hand; a
run of the same seeds takes the place of its former row. What is done and what is checked is in
`tests/simulation/` and `tests/histories/checker.py`; that the checker finds faults, in
`tests/simulation/test_checker_catches.py`. The same with real processes: [faults.md](faults.md).

| seeds | how many | failed | faults | acknowledged | revision | date | command |
|---|---|---|---|---|---|---|---|
"""
ROW = re.compile(r"^\| \d+ to \d+ \|.*\|$", re.MULTILINE)


class Tally(Struct):
    """What became of a range of seeds, so far."""

    seeds: range
    failed: list[int] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    def add(self, outcome: Outcome) -> None:
        """One more is played."""
        self.faults.update(outcome.faults)
        self.counts.update(outcome.counts)
        if outcome.wrong:
            self.failed.append(outcome.seed)

    def took_s(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.began


class Run(Struct):
    """One call of the command; `of` is the revision that was run."""

    tally: Tally
    of: str
    command: str

    def row(self, day: str) -> str:
        """Of the page's table."""
        tally = self.tally
        cells = [
            f"{tally.seeds[0]} to {tally.seeds[-1]}",
            f"{len(tally.seeds):,}",
            ", ".join(map(str, tally.failed)) or "none",
            f"{tally.faults.total():,}",
            f"{tally.counts['acknowledged']:,}",
            f"`{self.of}`",
            day,
            f"`python -m tests.simulation {self.command}`",
        ]
        return f"| {' | '.join(cells)} |"


def write_report(file: Path, run: Run) -> None:
    """Enter a run into the page, which is made where there is none."""
    before = file.read_text() if file.exists() else ""
    file.write_text(page(before, run, datetime.now(UTC).date().isoformat()))


def page(before: str, run: Run, day: str) -> str:
    """The page with a run on top of the others that it had."""
    row = run.row(day)
    seeds = row.split(" | ")[0]
    others = [other for other in ROW.findall(before) if other.split(" | ")[0] != seeds]
    return HEAD + "\n".join([row, *others][:RUNS_MAX]) + "\n"
