"""A run of the cases of a cluster, one after the other on the same servers."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import tempfile
from pathlib import Path

from msgspec.structs import replace

from bench import machine
from bench.cluster.cases import CASES
from bench.cluster.measuring import Plan
from bench.cluster.results import CaseResult, ClusterReport
from bench.cluster.warming import warm
from bench.cluster.world import World, open_world
from bench.opening import Stalled
from bench.results import Setting
from bench.run import revision
from bench.servers import ServerFailed, version_of
from bench.wire import ProtocolError
from storage.errors import Unavailable


def run(plan: Plan) -> ClusterReport:
    """Run the plan; `plan.tell` hears of each measurement. Raises `ServerFailed`."""
    with open_world(plan.scratch, plan.sizes.users) as world:
        setting = _setting(plan, world)
        warm(world, plan.sizes.warm_rows)
        return ClusterReport(
            setting=setting, cases=[_case(name, world, plan) for name in plan.cases]
        )


def _case(name: str, world: World, plan: Plan) -> CaseResult:
    """One case; a failure is a result too."""
    try:
        return CASES[name](world, plan)
    except (ServerFailed, ProtocolError, Stalled, Unavailable, OSError) as error:
        said = "; ".join([str(error), *getattr(error, "__notes__", [])])
        plan.tell(f"{name}: {said}")
        return CaseResult(case=name, load="", failures=[said])


def _setting(plan: Plan, world: World) -> Setting:
    (row,) = world.cassandra.nodes[0].query("SELECT release_version FROM system.local")
    names = ("trio", "cassandra-driver", "hiredis")
    versions = {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
        "Cassandra": str(row.release_version),
        "Redis": version_of(world.redis.program).split("v=")[-1].split()[0],
    }
    return Setting(
        command=plan.command,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        revision=revision(),
        versions=versions,
        machine=replace(machine.describe(), pinned=False),
        storage=machine.filesystem(plan.scratch or Path(tempfile.gettempdir())),
        transport="tcp",
        rounds=plan.rounds,
        window_s=plan.window_s,
    )
