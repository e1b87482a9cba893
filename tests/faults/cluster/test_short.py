"""A real cluster for a minute: restarts that nobody notices, then everything that can die, dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.cluster.harm import Fault, Harm
from tests.faults.cluster.story import EVERY_KIND, Outcome, play, storm_of

SEED = 4
KINDS = [kind for kind in EVERY_KIND if kind != "rolling restart"]
"""Those of the second part, each once."""

pytestmark = pytest.mark.timeout(600)


async def test_nothing_is_lost_doubled_or_out_of_order_whatever_dies(tmp_path: Path) -> None:
    restarts: list[Fault] = []

    async def restart_all(harm: Harm) -> None:
        restarts.append(await harm.alone("rolling restart"))

    plot = [restart_all, storm_of(len(KINDS), KINDS, print)]
    outcome = await play(tmp_path, SEED, plot, told=print)
    (tmp_path / "trace").write_text("\n".join(outcome.record.trace or ()))
    print(outcome.record.counts)
    assert not outcome.wrong, outcome.wrong[:5]
    assert restarts[0].unavailable == 0, "who restarts one node after the other is not noticed"
    assert_busy(outcome)


def assert_busy(outcome: Outcome) -> None:
    """A run in which nothing happens finds nothing."""
    counts = outcome.record.counts
    assert counts["acknowledged"] > 200
    assert counts["live"] > counts["acknowledged"]
    assert counts["connections ended"] > 10
    assert {fault.kind for fault in outcome.faults} == set(EVERY_KIND)
