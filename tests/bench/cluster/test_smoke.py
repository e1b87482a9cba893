"""Every case of a cluster once, tiny, on real servers: are its figures there, do they add up?"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench.cluster import report
from bench.cluster.cases import CASES
from bench.cluster.measuring import Plan
from bench.cluster.run import run
from bench.cluster.sizes import TINY


@pytest.mark.timeout(900)
def test_every_case_measures_what_it_is_for(tmp_path: Path) -> None:
    said: list[str] = []
    plan = Plan(
        cases=list(CASES),
        rounds=1,
        window_s=0.5,
        scratch=tmp_path,
        sizes=TINY,
        tell=said.append,
    )
    found = run(plan)
    assert {case.case: case.failures for case in found.cases} == {name: [] for name in CASES}
    for case in found.cases:
        assert all(target.reached is not None for target in case.targets), case
        assert all(min(figure.rounds) > 0 for figure in case.figures), case
    variants = {share.variant: share.cores for case in found.cases for share in case.shares}
    assert {"node 1", "node 2", "Cassandra", "Redis", "load client"} <= variants["2 workers"].keys()
    assert "node 2" not in variants["1 worker"]
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found
    assert "S4" in report.markdown(found)
    assert said
