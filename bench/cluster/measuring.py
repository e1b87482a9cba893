"""What the cases have in common: a plan, rounds of load, and how failures and shares are noted."""

from __future__ import annotations

import contextlib
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from bench.cluster.results import CaseResult, Figure, Shares
from bench.cluster.sizes import Sizes
from bench.cluster.world import BROKER, Broker, World
from bench.jobs import Job, Outcome
from bench.servers import ServerFailed

WARMUP_SHARE = 0.5
KEYS_APART = 10_000_000
"""Between the keys of two measurements, which may write to the same conversations."""
LOAD_CLIENT = "load client"


class Plan(Struct, frozen=True, kw_only=True):
    """What to run; `tell` hears a line of each measurement."""

    cases: Sequence[str]
    rounds: int = 3
    window_s: float = 4.0
    scratch: Path | None = None
    command: str = "parley bench"
    sizes: Sizes = Sizes()
    tell: Callable[[str], None] = print

    def job(self, world: World, *, port: int, pid: int, **fields: Any) -> Job:
        """A job for the load client, which is pinned to no core. `fields` are those of `Job`."""
        job = Job(
            system="parley",
            transport="tcp",
            port=port,
            server_pid=pid,
            warmup_s=self.window_s * WARMUP_SHARE,
            window_s=self.window_s,
            pinned=False,
            samples=1,
            **fields,
        )
        return structs.replace(job, tokens=world.tokens[: job.connections])


class Rounds:
    """The outcomes of a case's rounds, by variant; None where one failed."""

    def __init__(self, world: World, plan: Plan, result: CaseResult) -> None:
        self.outcomes: defaultdict[str, list[Outcome | None]] = defaultdict(list)
        self._world = world
        self._plan = plan
        self._result = result

    @contextlib.contextmanager
    def serving(
        self, variant: str, *, workers: int = 1, module: Sequence[str] = BROKER
    ) -> Iterator[Broker]:
        """A broker for one measurement. What fails in the block is noted as a failure."""
        outcomes = self.outcomes[variant]
        before = len(outcomes)
        try:
            with self._world.serve(workers=workers, module=module) as broker:
                yield broker
        except (ServerFailed, OSError) as error:
            said = "; ".join([str(error), *getattr(error, "__notes__", [])])
            self._result.failures.append(f"round {before + 1}, {variant}: {said}")
            self._plan.tell(f"{self._result.case} {variant}: {said}")
            outcomes[before:] = [None]

    def measure(self, variant: str, job: Job, broker: Broker) -> Outcome:
        """One measurement. Raises `ServerFailed`."""
        job = structs.replace(
            job,
            watched=self._world.watched(broker),
            keys_from=sum(map(len, self.outcomes.values())) * KEYS_APART,
        )
        outcome = self._world.load(job)
        self.outcomes[variant].append(outcome)
        self._plan.tell(
            f"{self._result.case} {variant}: {outcome.count / outcome.elapsed_s:,.0f}/s, "
            f"{outcome.publishes / outcome.elapsed_s:,.0f} publishes/s; "
            + ", ".join(f"{name} {share:.0%}" for name, share in cores(outcome).items())
        )
        return outcome

    def latencies(self, variant: str) -> list[Figure]:
        """How long publishers waited for their answers, under full load."""
        acks = [o.ack for o in self.outcomes[variant] if o and o.ack]
        name = f"{variant}: publish → answer"
        return [
            Figure(name=f"{name}, p50", unit="ms", rounds=[ack.p50_ms for ack in acks]),
            Figure(name=f"{name}, p99", unit="ms", rounds=[ack.p99_ms for ack in acks]),
        ]

    def shares(self) -> list[Shares]:
        """Who used the cores, on average over the rounds."""
        found = []
        for variant, outcomes in self.outcomes.items():
            all_cores = [cores(outcome) for outcome in outcomes if outcome]
            if all_cores:
                means = {n: statistics.mean(c[n] for c in all_cores) for n in all_cores[0]}
                found.append(Shares(variant=variant, cores=means))
        return found


def cores(outcome: Outcome) -> dict[str, float]:
    """How many cores each process used in the window."""
    used = {**outcome.watched_cpu_s, LOAD_CLIENT: outcome.load_cpu_s}
    return {name: cpu / outcome.elapsed_s for name, cpu in used.items()}
