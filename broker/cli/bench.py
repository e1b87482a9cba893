"""`parley bench`: measure the broker against targets and baselines, from a repository checkout."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from rich.console import Console
from rich.progress import Progress

import broker
from broker.cli.failures import Failure, Misconfigured

if TYPE_CHECKING:
    from bench.cluster.measuring import Plan as ClusterPlan
    from bench.cluster.results import ClusterReport
    from bench.results import Report
    from bench.run import Plan, Step

CASE_NAMES = ("F1", "F2", "F3", "F4", "P1", "P2", "M", "C")
CLUSTER_NAMES = ("S1a", "S1b", "S2", "S3", "S4", "S5")
SYSTEM_NAMES = ("parley", "nats", "floor", "naive")
ROUNDS_MAX = 100
SECONDS_MAX = 15.0
"""Longer windows would meet the server's heartbeats, which the load client does not answer."""


@click.command("bench", short_help="Measure the broker against targets and baselines.")
@click.argument(
    "names", metavar="[CASE]...", nargs=-1, type=click.Choice((*CASE_NAMES, *CLUSTER_NAMES))
)
@click.option(
    "--cluster", is_flag=True, help="The cases S, on Cassandra and Redis, which it starts itself."
)
@click.option("--rounds", type=click.IntRange(1, ROUNDS_MAX), default=3, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, SECONDS_MAX),
    default=4.0,
    show_default=True,
    help="Measured window; the warm-up before it is a third of it.",
)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the result file.")
@click.option(
    "--only", multiple=True, type=click.Choice(SYSTEM_NAMES), help="Only this system; repeatable."
)
@click.option(
    "--transport", type=click.Choice(["ws", "tcp"]), default="ws", help="Parley's. [default: ws]"
)
@click.option(
    "--nats",
    metavar="PATH",
    envvar="PARLEY_BENCH_NATS",
    help="The nats-server binary, if it is not on the PATH.",
)
@click.option(
    "--scratch",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Where databases are made; a real disk, please.",
)
@click.option(
    "--profile",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Profile Parley in the measured windows: FILE-CASE gets collapsed stacks, and a table "
    "beside it; with a name in .prof, exact calls for pstats.",
)
@click.option(
    "--from",
    "earlier",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Measure nothing; report this result file.",
)
@click.option("--update-docs", is_flag=True, help="Put the report into docs/benchmarks.md.")
@click.option("--check", is_flag=True, help="Exit with 1 if a target is missed.")
def command(
    names: tuple[str, ...],
    cluster: bool,
    rounds: int,
    seconds: float,
    file: Path | None,
    only: tuple[str, ...],
    transport: str,
    nats: str | None,
    scratch: Path | None,
    profile: Path | None,
    earlier: Path | None,
    update_docs: bool,
    check: bool,
) -> None:
    """Run the CASEs and print the table as Markdown. If none is named: all of one process, or with
    --cluster all that need Cassandra and Redis (scripts/servers gets them).

    Each server runs on core 0 and the load client on core 1, where there are two. Baselines run in
    the same rounds: nats-server where there is one, a bare loop of sends, a naive server.
    """
    _find_bench()
    if cluster or set(names) & set(CLUSTER_NAMES):
        if not set(names) <= set(CLUSTER_NAMES):
            raise Misconfigured("the cases S are run by themselves")
        if only or profile:
            raise Misconfigured("--only and --profile are not for the cases S")
        _cluster(
            names or CLUSTER_NAMES,
            rounds=rounds,
            seconds=seconds,
            scratch=scratch,
            file=file,
            earlier=earlier,
            update_docs=update_docs,
            check=check,
        )
        return
    from bench import report, results, servers
    from bench.cases import ALL, CASES
    from bench.run import Plan

    if earlier:
        try:
            result = results.load(earlier)
        except msgspec.MsgspecError as error:
            raise Misconfigured(f"{earlier}: not a result file: {error}") from None
    else:
        found = servers.find_nats(nats)
        if not found and (nats or "nats" in only):
            raise Misconfigured("there is no nats-server; name it with --nats")
        plan = Plan(
            cases=[CASES[name] for name in names or CASE_NAMES],
            systems=[name for name in ALL if name in (only or ALL)],
            rounds=rounds,
            window_s=seconds,
            transport="tcp" if transport == "tcp" else "ws",
            nats=found,
            profile=profile,
            scratch=scratch,
            command=_own_command(),
        )
        result = _run(plan)
    if file:
        results.save(result, file)
    if update_docs:
        report.update_file(servers.ROOT / "docs" / "benchmarks.md", result)
    click.echo(report.markdown(result))
    if any(case.failures for case in result.cases):
        raise Failure("some measurements failed or did not prove themselves; see above")
    if check and not all(case.met for case in result.cases):
        raise Failure("some targets were missed or could not be measured")


def _cluster(
    names: Sequence[str],
    *,
    rounds: int,
    seconds: float,
    scratch: Path | None,
    file: Path | None,
    earlier: Path | None,
    update_docs: bool,
    check: bool,
) -> None:
    from bench.cluster import report, results
    from bench.cluster.measuring import Plan
    from bench.servers import ROOT

    if earlier:
        try:
            result = results.load(earlier)
        except msgspec.MsgspecError as error:
            raise Misconfigured(f"{earlier}: not a cluster's result file: {error}") from None
    else:
        result = _run_cluster(
            Plan(
                cases=names,
                rounds=rounds,
                window_s=seconds,
                scratch=scratch,
                command=_own_command(),
                tell=lambda line: click.echo(line, err=True),
            )
        )
    if file:
        results.save(result, file)
    if update_docs:
        report.update_file(ROOT / "docs" / "benchmarks.md", result)
    click.echo(report.markdown(result))
    if any(case.failures for case in result.cases):
        raise Failure("some measurements failed or did not prove themselves; see above")
    if check and any(case.missed for case in result.cases):
        raise Failure("some targets were missed or could not be measured")


def _run_cluster(plan: ClusterPlan) -> ClusterReport:
    from bench.cluster.run import run
    from bench.servers import ServerFailed

    try:
        return run(plan)
    except ServerFailed as error:
        raise Failure(str(error)) from None


def _find_bench() -> None:
    """Make the repository's `bench` importable: it is not installed. Raises `Failure`."""
    root = Path(broker.__file__).resolve().parent.parent
    if not (root / "bench" / "run.py").exists():
        raise Failure("parley bench needs a checkout of the repository; this is an installed copy")
    if importlib.util.find_spec("bench") is None:
        sys.path.insert(0, str(root))


def _run(plan: Plan) -> Report:
    """Run the plan; a bar on a terminal, and a line for each measurement on standard error."""
    from bench.run import run
    from bench.servers import ServerFailed

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("bench", total=plan.steps)

        def tell(step: Step) -> None:
            console.print(_line(step), markup=False)
            progress.advance(task)

        try:
            return run(plan, tell)
        except ServerFailed as error:
            raise Failure(str(error)) from None


def _line(step: Step) -> str:
    from bench.report import amount

    where = f"{step.case.name} round {step.round} {step.system}:"
    if step.outcome is None:
        return f"{where} {step.failure}"
    unit = step.case.unit if step.case.unit == "KB each" else f"{step.case.unit}/cpu-s"
    return " ".join([where, amount(step.case.value(step.outcome)), unit, step.failure]).rstrip()


def _own_command() -> str:
    """The command as one would type it in the repository: no paths of this machine."""
    shown: list[str] = []
    arguments = iter(sys.argv[2:] if "bench" in sys.argv[1:2] else [])
    for argument in arguments:
        if argument.partition("=")[0] in ("--nats", "--scratch", "--json", "--profile"):
            if "=" not in argument:
                next(arguments, None)
        else:
            shown.append(argument)
    return shlex.join(["parley", "bench", *shown])
