"""S3: what a second worker is worth, where one large group is told of many messages.

Server, load client, Cassandra and Redis share one machine, so what each of them uses of it is part
of the result: with two cores, two workers have at most what the others leave. So it is measured
twice: with all that the machine has, and with the same budget of CPU time for each worker.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from bench import stats
from bench.cluster.budget import MOUNTS, Controller, controller, held_to
from bench.cluster.measuring import Plan, Rounds
from bench.cluster.results import CaseResult, Figure, Target
from bench.cluster.world import World
from bench.jobs import Outcome

TIMES = 1.5
BUDGET_CORES = 0.4
"""Of each worker: two of them, and what Cassandra and the load client need for what they deliver,
leave some of two cores unused."""


class _Variant(NamedTuple):
    workers: int
    cores: float | None

    @property
    def name(self) -> str:
        workers = f"{self.workers} worker{'s' if self.workers > 1 else ''}"
        return workers if self.cores is None else f"{workers}, {self.cores} of a core each"


def two(world: World, plan: Plan) -> CaseResult:
    """S3."""
    sizes = plan.sizes
    load = (
        f"1 group × {sizes.members:,} members, {sizes.publishers} publish, {sizes.in_flight} in "
        "flight each"
    )
    result = CaseResult(case="S3", load=load)
    rounds = Rounds(world, plan, result)
    found = None
    try:
        found = controller(MOUNTS.read_text())
    except OSError as error:
        result.notes.append(f"not measured with a budget for each worker: {error}")
    for cores in (None, BUDGET_CORES) if found else (None,):
        one, both = _Variant(1, cores), _Variant(2, cores)
        for _ in range(plan.rounds):
            for variant in (one, both):
                _measure(world, plan, rounds, variant, found)
        for variant in (one, both):
            result.figures += _figures(rounds, variant)
        result.targets.append(_target(rounds, one, both))
    result.shares = rounds.shares()
    return result


def _measure(
    world: World, plan: Plan, rounds: Rounds, variant: _Variant, found: Controller | None
) -> None:
    sizes = plan.sizes
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(rounds.serving(variant.name, workers=variant.workers))
        if found and variant.cores:
            stack.enter_context(held_to(found, variant.cores, broker.pids))
        job = plan.job(
            world,
            port=broker.tcp,
            pid=broker.pids[0],
            shape="groups",
            members=sizes.members,
            publishers=sizes.publishers,
            in_flight=sizes.in_flight,
            light=True,
        )
        rounds.measure(variant.name, job, broker)


def _figures(rounds: Rounds, variant: _Variant) -> list[Figure]:
    name = f"{variant.name}: deliveries"
    outcomes = [outcome for outcome in rounds.outcomes[variant.name] if outcome]
    per_cpu = [outcome.count / _brokers_cpu_s(outcome) for outcome in outcomes]
    return [
        Figure(name=name, unit="deliveries/s", rounds=[_rate(o) for o in outcomes]),
        Figure(name=name, unit="deliveries/cpu-s of the workers", rounds=per_cpu),
        *rounds.latencies(variant.name),
    ]


def _target(rounds: Rounds, one: _Variant, both: _Variant) -> Target:
    pairs = zip(rounds.outcomes[both.name], rounds.outcomes[one.name], strict=True)
    rates = [(_rate(a), _rate(b)) for a, b in pairs if a and b]
    held = "" if one.cores is None else f", {one.cores} of a core for each"
    return Target(
        what=f"deliveries/s against one worker{held}",
        value=TIMES,
        reached=stats.median_ratio([a for a, _ in rates], [b for _, b in rates]),
        times=True,
    )


def _rate(outcome: Outcome) -> float:
    return outcome.count / outcome.elapsed_s


def _brokers_cpu_s(outcome: Outcome) -> float:
    return sum(cpu for name, cpu in outcome.watched_cpu_s.items() if name.startswith("node"))
