"""A few faults of each kind over real processes; the long run is a command of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.cluster.run import run

FAULTS = 9


@pytest.mark.timeout(400)
async def test_nothing_is_lost_whatever_is_killed(tmp_path: Path) -> None:
    result = await run(tmp_path, seed=7, faults=FAULTS)
    assert not result.wrong, result.markdown()
    assert result.faults.total() == FAULTS
    assert result.counts["acknowledged"] > 50, result.markdown()
