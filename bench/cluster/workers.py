"""S3: what a second worker is worth, where one large group is told of many messages.

Server, load client, Cassandra and Redis share one machine, so what each of them uses of it is part
of the result: with two cores, two workers have at most what the others leave.
"""

from __future__ import annotations

from bench import stats
from bench.cluster.measuring import Plan, Rounds
from bench.cluster.results import CaseResult, Figure, Target
from bench.cluster.world import World
from bench.jobs import Outcome

TIMES = 1.5
VARIANTS = {"1 worker": 1, "2 workers": 2}


def two(world: World, plan: Plan) -> CaseResult:
    """S3."""
    sizes = plan.sizes
    load = (
        f"1 group × {sizes.members:,} members, {sizes.publishers} publish, {sizes.in_flight} in "
        "flight each"
    )
    result = CaseResult(case="S3", load=load)
    rounds = Rounds(world, plan, result)
    for _ in range(plan.rounds):
        for variant, workers in VARIANTS.items():
            with rounds.serving(variant, workers=workers) as broker:
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
                rounds.measure(variant, job, broker)
    for variant in VARIANTS:
        outcomes = [outcome for outcome in rounds.outcomes[variant] if outcome]
        rates = [_rate(outcome) for outcome in outcomes]
        per_cpu = [outcome.count / _brokers_cpu_s(outcome) for outcome in outcomes]
        unit = "deliveries/cpu-s of the workers"
        result.figures += [
            Figure(name=f"{variant}: deliveries", unit="deliveries/s", rounds=rates),
            Figure(name=f"{variant}: deliveries", unit=unit, rounds=per_cpu),
            *rounds.latencies(variant),
        ]
    one, two_ = (rounds.outcomes[variant] for variant in VARIANTS)
    both = [(_rate(a), _rate(b)) for a, b in zip(two_, one, strict=True) if a and b]
    reached = stats.median_ratio([a for a, _ in both], [b for _, b in both])
    result.targets.append(
        Target(what="deliveries/s against one worker", value=TIMES, reached=reached, times=True)
    )
    result.shares = rounds.shares()
    return result


def _rate(outcome: Outcome) -> float:
    return outcome.count / outcome.elapsed_s


def _brokers_cpu_s(outcome: Outcome) -> float:
    return sum(cpu for name, cpu in outcome.watched_cpu_s.items() if name.startswith("node"))
