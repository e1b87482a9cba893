"""A run: rounds of cases of systems, interleaved, because the machine's own pace wanders.

It starts servers and load clients and gathers what they say; it measures nothing itself and keeps
off their cores while they work (it waits).
"""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from bench import machine, servers
from bench.cases import Case
from bench.jobs import Job, Outcome, System
from bench.results import CaseResult, Report, Setting
from bench.servers import ServerFailed
from bench.wire import Transport

SETUP_TIMEOUT_S = 180.0
WARMUP_SHARE = 1 / 3
WARMUP_MIN_S = 0.2


class Plan(Struct, frozen=True, kw_only=True):
    """What to run."""

    cases: Sequence[Case]
    systems: Sequence[System]
    rounds: int = 3
    window_s: float = 4.0
    transport: Transport = "ws"
    nats: str | None = None
    profile: Path | None = None
    scratch: Path | None = None
    command: str = "parley bench"

    @property
    def steps(self) -> int:
        """How many measurements it takes."""
        return self.rounds * sum(len(self.systems_of(case)) for case in self.cases)

    def systems_of(self, case: Case) -> list[System]:
        """Those that are wanted, there, and defined for the case."""
        return [
            system
            for system in self.systems
            if system in case.systems and (system != "nats" or self.nats)
        ]


class Step(NamedTuple):
    """One measurement that is done: `outcome`, or why there is none."""

    round: int
    case: Case
    system: System
    outcome: Outcome | None
    failure: str


def run(plan: Plan, tell: Callable[[Step], None]) -> Report:
    """Run the plan; `tell` hears of each measurement. Raises `ServerFailed` if users fail."""
    results = {case.name: CaseResult(case=case.name) for case in plan.cases}
    setting = _setting(plan)
    with tempfile.TemporaryDirectory(prefix="parley-bench", dir=plan.scratch) as folder:
        template = Path(folder) / "template"
        tokens: list[str] = []
        if "parley" in plan.systems:
            tokens = servers.make_users(template, max(c.connections for c in plan.cases))
        for step in _steps(plan, template, tokens):
            result = results[step.case.name]
            result.rounds.setdefault(step.system, []).append(step.outcome)
            if step.failure:
                where = f"round {step.round}, {step.system}"
                result.failures.append(f"{where}: {step.failure}")
            tell(step)
    return Report(setting=setting, cases=list(results.values()))


def _steps(plan: Plan, template: Path, tokens: list[str]) -> Iterator[Step]:
    for number in range(1, plan.rounds + 1):
        for case in plan.cases:
            for system in plan.systems_of(case):
                outcome, failure = _measure(plan, case, system, template, tokens)
                yield Step(number, case, system, outcome, failure)


def _measure(
    plan: Plan, case: Case, system: System, template: Path, tokens: list[str]
) -> tuple[Outcome | None, str]:
    """One system, one case, once; a failure is a result too."""
    profile = None
    if plan.profile and system == "parley":
        profile = plan.profile.absolute().with_stem(f"{plan.profile.stem}-{case.name}")
    try:
        with servers.serve(
            system,
            transport=plan.transport,
            template=template,
            nats=plan.nats or "",
            profile=profile,
            scratch=plan.scratch,
        ) as running:
            outcome = load(
                case.job(
                    system,
                    port=running.port,
                    pid=running.pid,
                    # The baselines in Python speak WebSocket only.
                    transport=plan.transport if system == "parley" else "ws",
                    tokens=tokens[: case.connections],
                    warmup_s=max(WARMUP_MIN_S, plan.window_s * WARMUP_SHARE),
                    window_s=plan.window_s,
                    profiled=profile is not None,
                )
            )
    except (ServerFailed, OSError) as error:
        return None, "; ".join([str(error), *getattr(error, "__notes__", [])])
    problems = outcome.checks.problems if outcome.checks else []
    return outcome, "; ".join(problems)


def load(job: Job) -> Outcome:
    """The load client's process. Raises `ServerFailed` with the end of what it said."""
    limit = SETUP_TIMEOUT_S + job.warmup_s + job.window_s + job.drain_s
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bench.load"],
            input=msgspec.json.encode(job),
            capture_output=True,
            env=servers.environment(),
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        raise ServerFailed(f"the load client was not done after {limit:g} s") from None
    if done.returncode:
        raise ServerFailed(f"the load client failed: {servers.last_words(done.stderr)}")
    return msgspec.json.decode(done.stdout, type=Outcome)


def _setting(plan: Plan) -> Setting:
    versions = {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: importlib.metadata.version(name) for name in ("trio", "trio-websocket")},
    }
    if plan.nats and "nats" in plan.systems:
        versions["nats-server"] = servers.version_of(plan.nats).rpartition(" ")[2]
    return Setting(
        command=plan.command,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        revision=revision(),
        versions=versions,
        machine=machine.describe(),
        storage=machine.filesystem(plan.scratch or Path(tempfile.gettempdir())),
        transport=plan.transport,
        rounds=plan.rounds,
        window_s=plan.window_s,
        profiled=plan.profile is not None,
    )


def revision() -> str:
    """The commit of the checkout, with a mark where files differ from it."""
    try:
        asked = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=servers.ROOT,
            capture_output=True,
            text=True,
        )
    except OSError:
        return "unknown"
    return asked.stdout.strip() or "unknown"
