"""A process killed in the middle of its work: what it told is there, and only whole commits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from storage.sqlite import open_sqlite
from tests.conformance.making import payloads
from tests.storage.sqlite.crashing import CONVS

KILLS = 5
COMMITS_BEFORE_A_KILL = 45

ROOT = Path(__file__).parents[3]


def _killed_after(path: Path, commits: int) -> int:
    """Run until so many commits were told, kill, and return the last seq that was told."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.storage.sqlite.crashing", str(path)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for _ in range(commits):
            assert process.stdout.readline()
        process.kill()
        told = process.stdout.read().split("\n")[:-1]
    return int(told[-1]) if told else 0


async def test_what_was_told_survives_and_nothing_by_halves(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    for kill in range(KILLS):
        told = _killed_after(path, COMMITS_BEFORE_A_KILL + kill)
        async with open_sqlite(path, exclusive=True) as store:
            heads = {head.seq for head in (await store.heads(CONVS)).values()}
            assert len(heads) == 1
            (head,) = heads
            assert head >= max(told, 1)
            for conv in CONVS:
                assert await store.read(conv, limit=head + 1) == payloads(1, head)
            assert [m.conv for m in await store.memberships(1)] == ["d/1/2"]
