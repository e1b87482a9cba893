"""The cases of a cluster, in the order in which they are told. Data, no I/O."""

from __future__ import annotations

from collections.abc import Callable

from bench.cluster import hops, inserts, pages, syncing, workers
from bench.cluster.measuring import Plan
from bench.cluster.results import CaseResult
from bench.cluster.world import World

CASES: dict[str, Callable[[World, Plan], CaseResult]] = {
    "S1a": inserts.hot,
    "S1b": inserts.many,
    "S2": syncing.sync,
    "S3": workers.two,
    "S4": hops.hops,
    "S5": pages.pages,
}
