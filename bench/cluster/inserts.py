"""S1: what group commit is worth, with one hot conversation and with many at their leisure.

The same broker and the same load twice, one after the other in each round: once as it is, once with
an INSERT for each message (`bench.baselines.inserts`). Both wait for Cassandra before anybody hears
of a message.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from bench import stats
from bench.cluster.measuring import Plan, Rounds
from bench.cluster.results import CaseResult, Figure, Target
from bench.cluster.world import BROKER, World
from bench.jobs import Job, Outcome

ALONE = ("bench.baselines.inserts",)
VARIANTS = {"group commit": BROKER, "an INSERT each": ALONE}
TAKING_UP_S = 35.0
"""Longer than it takes to take up a thousand conversations, also with an INSERT for each row: then
it takes over 20 s, and what is measured before that flatters us (2.6 in the place of 2.0 times)."""
S1A_TIMES = 4.0
S1B_TIMES = 2.5


def hot(world: World, plan: Plan) -> CaseResult:
    """S1a: one group, all publish but one who checks the order."""
    sizes = plan.sizes
    load = f"1 group, {sizes.publishers} publish, {sizes.in_flight} in flight each"
    result = CaseResult(case="S1a", load=load)

    def job(port: int, pid: int) -> Job:
        return plan.job(
            world,
            port=port,
            pid=pid,
            shape="groups",
            members=sizes.publishers + 1,
            publishers=sizes.publishers,
            in_flight=sizes.in_flight,
        )

    return _compare(world, plan, result, job, S1A_TIMES)


def many(world: World, plan: Plan) -> CaseResult:
    """S1b: pairs, of whom one publishes the next message when the last one is answered."""
    pairs = plan.sizes.pairs
    result = CaseResult(case="S1b", load=f"{pairs:,} conversations, 1 in flight each")

    def job(port: int, pid: int) -> Job:
        job = plan.job(
            world, port=port, pid=pid, shape="pairs", groups=pairs, members=2, publishers=1
        )
        # A broker that has just begun takes all of them up first, which is not what is measured.
        return structs.replace(job, warmup_s=max(job.warmup_s, TAKING_UP_S * pairs / 1_000))

    return _compare(world, plan, result, job, S1B_TIMES)


def _compare(
    world: World,
    plan: Plan,
    result: CaseResult,
    job: Callable[[int, int], Job],
    times: float,
) -> CaseResult:
    rounds = Rounds(world, plan, result)
    for _ in range(plan.rounds):
        for variant, module in VARIANTS.items():
            with rounds.serving(variant, module=module) as broker:
                rounds.measure(variant, job(broker.tcp, broker.pids[0]), broker)
    outcomes = rounds.outcomes
    for variant in VARIANTS:
        rate = [_rate(outcome) for outcome in outcomes[variant] if outcome]
        cpu = [o.publishes / o.server_cpu_s for o in outcomes[variant] if o]
        result.figures += [
            Figure(name=f"{variant}: publishes", unit="publishes/s", rounds=rate),
            Figure(name=f"{variant}: publishes", unit="publishes/cpu-s of the broker", rounds=cpu),
            *rounds.latencies(variant),
        ]
    ours, theirs = (outcomes[variant] for variant in VARIANTS)
    both = [(_rate(a), _rate(b)) for a, b in zip(ours, theirs, strict=True) if a and b]
    result.targets.append(
        Target(
            what="publishes/s against one INSERT per message",
            value=times,
            reached=stats.median_ratio([a for a, _ in both], [b for _, b in both]),
            times=True,
        )
    )
    result.shares = rounds.shares()
    return result


def _rate(outcome: Outcome) -> float:
    return outcome.publishes / outcome.elapsed_s
