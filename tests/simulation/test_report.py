"""The page of the seeds: a run is a row, whatever it found, and other runs' rows stay."""

from __future__ import annotations

from pathlib import Path

from tests.docs.markdown import table
from tests.simulation.report import RUNS_MAX, Run, Tally, page, write_report
from tests.simulation.world import Outcome


def run(start: int, *failed: int, of: str = "abc") -> Run:
    tally = Tally(range(start, start + 1_000))
    for seed in (start, *failed):
        wrong = ["an entry was lost"] if seed in failed else []
        tally.add(Outcome(seed, wrong, "", {"acknowledged": 700}, faults={"kill": 2}))
    return Run(tally, of=of, command=f"--seeds 1000 --start {start}")


def rows(text: str) -> list[list[str]]:
    return table(text, "seeds", "how many")


def test_a_run_is_a_row() -> None:
    (row,) = rows(page("", run(5_000, 5_007, 5_009), "2026-01-02"))
    assert row == [
        "5000 to 5999",
        "1,000",
        "5007, 5009",
        "6",
        "2,100",
        "`abc`",
        "2026-01-02",
        "`python -m tests.simulation --seeds 1000 --start 5000`",
    ]


def test_other_runs_stay_and_the_same_seeds_do_not() -> None:
    text = ""
    for each in (run(0, 3), run(1_000), run(0, of="def")):
        text = page(text, each, "2026-01-02")
    assert [(row[0], row[2], row[5]) for row in rows(text)] == [
        ("0 to 999", "none", "`def`"),
        ("1000 to 1999", "none", "`abc`"),
    ]


def test_the_page_does_not_grow_for_ever() -> None:
    text = ""
    for number in range(RUNS_MAX + 5):
        text = page(text, run(1_000 * number), "2026-01-02")
    assert len(rows(text)) == RUNS_MAX


def test_it_is_written_where_there_was_none(tmp_path: Path) -> None:
    file = tmp_path / "seeds.md"
    for _ in range(2):
        write_report(file, run(0))
    assert len(rows(file.read_text())) == 1
