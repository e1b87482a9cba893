"""`parley replay`: chat logs through real connections, with a proof at the end."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from broker.cli.failures import Failure
from broker.client import ParleyClientError
from broker.replay.attendance import Tally
from broker.replay.host import HostFailed, own_broker, raise_file_limit, tokens
from broker.replay.log import Log
from broker.replay.parser import NOBODY, parse
from broker.replay.proof import ProofFailed
from broker.replay.report import Report
from broker.replay.runner import Plan, Replay

FILE_MAX_BYTES = 64 << 20
TOKENS_MAX_BYTES = 64 << 20
FILES_SPARE = 64
"""Open files that this process needs for other things than connections."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    speed: float | None
    window: int
    connections: int
    transport: str
    urls: tuple[str, ...]
    token_file: Path | None
    data: Path | None
    json: Path | None


@click.command("replay", short_help="Replay chat logs through a broker and prove the result.")
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    help="Times as fast as life; without it, as fast as the broker acknowledges.",
)
@click.option(
    "--window",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Rooms (files) at the same time.",
)
@click.option(
    "--connections",
    type=click.IntRange(min=2),
    default=2_000,
    show_default=True,
    help="Connections at the same time, over all rooms.",
)
@click.option(
    "--transport",
    type=click.Choice(["mixed", "ws", "tcp"]),
    default="mixed",
    show_default=True,
    help="How persons connect to a broker that this command starts.",
)
@click.option(
    "--url",
    "urls",
    multiple=True,
    help="Use this running broker (ws://HOST:PORT/ws or tcp://HOST:PORT; several: in turn).",
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --url: a session token a line, one for each person and one more for each file.",
)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="With --url: that broker's data directory, to make users and tokens there.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the result there.",
)
def command(
    files: tuple[Path, ...],
    speed: float | None,
    window: int,
    connections: int,
    transport: str,
    urls: tuple[str, ...],
    token_file: Path | None,
    data: Path | None,
    json_file: Path | None,
) -> None:
    """Replay IRC logs: each nick a user with a connection, each FILE a room.

    Messages, joins, leaves and renames are sent in order. At the end the history that is read back
    must equal the log, and each client must have seen what it should have, in order, once: if not,
    the first difference is shown and the command fails.

    Without --url it starts a broker of its own, in a temporary directory.
    """
    if bool(urls) != bool(token_file or data) or (token_file and data):
        raise click.UsageError("--url needs --token-file or --data, and they need --url")
    options = Options(speed, window, connections, transport, urls, token_file, data, json_file)
    logs = [_read(file) for file in files]
    report = _result(logs, options)
    Console().print(report.table())
    if options.json is not None:
        options.json.write_text(report.json(), encoding="utf-8")
    if not report.proved:
        raise Failure(f"not proved: {report.difference}")
    click.echo(
        f"Proved: the history read back equals the logs in all {report.entries:,} entries, and"
        f" every client saw its part of the {report.deliveries:,} deliveries, once, in order."
    )


def _result(logs: Sequence[Log], options: Options) -> Report:
    failed: BaseException
    try:
        return trio.run(_run, logs, options)
    except* (ParleyClientError, HostFailed) as group:
        failed = _leaf(group)
    raise Failure(str(failed))


def _read(file: Path) -> Log:
    with file.open("rb") as stream:
        data = stream.read(FILE_MAX_BYTES + 1)
    if len(data) > FILE_MAX_BYTES:
        raise Failure(f"{file}: larger than {FILE_MAX_BYTES >> 20} MiB")
    log = parse(file.stem, data)
    if not set(log.nicks) - {NOBODY}:
        raise Failure(f"{file}: not a chat log, no line of it names anybody")
    return log


async def _run(logs: Sequence[Log], options: Options) -> Report:
    most = raise_file_limit() - FILES_SPARE
    largest = max(len(log.nicks) + 1 for log in logs)
    allowed = min(options.connections, most)
    if largest > allowed:
        raise Failure(f"a room needs {largest} connections, {allowed} are allowed")
    names = [
        f"replay-{room}-{n}" for room, log in enumerate(logs) for n in range(-1, len(log.nicks))
    ]
    async with _broker(options, names) as (urls, all_tokens):
        return await _replay_all(logs, options, urls, all_tokens, allowed)


@asynccontextmanager
async def _broker(
    options: Options, names: Sequence[str]
) -> AsyncIterator[tuple[Sequence[str], Sequence[str]]]:
    """Where to connect, and a token for each name."""
    if options.token_file is not None:
        found = options.token_file.read_bytes()[:TOKENS_MAX_BYTES].decode().split()
        if len(found) < len(names):
            raise Failure(f"{options.token_file}: {len(found)} tokens, {len(names)} are needed")
        yield options.urls, found
    elif options.data is not None:
        yield options.urls, await tokens(options.data, names)
    else:
        async with own_broker() as host:
            urls = {
                "ws": (host.websocket,),
                "tcp": (host.tcp,),
                "mixed": (host.websocket, host.tcp),
            }
            yield urls[options.transport], await tokens(host.data, names)


async def _replay_all(
    logs: Sequence[Log],
    options: Options,
    urls: Sequence[str],
    all_tokens: Sequence[str],
    allowed: int,
) -> Report:
    tally = Tally()
    difference = ""
    rest = list(all_tokens)
    with _progress() as progress:
        task = progress.add_task("replaying", total=sum(log.messages for log in logs))
        plan = Plan(urls, options.speed, lambda: progress.advance(task))
        replays = []
        for log in logs:
            count = len(log.nicks) + 1
            replays.append(Replay(log, rest[:count], plan, tally))
            del rest[:count]
        try:
            await _in_window(replays, options.window, allowed)
        except* ProofFailed as group:
            # Many clients may have seen the same at once; one of them is enough to tell.
            difference = str(_leaf(group))
    persons = sum(len(log.nicks) for log in logs)
    return Report.of(tally, rooms=len(logs), persons=persons, difference=difference)


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _in_window(replays: Sequence[Replay], window: int, connections: int) -> None:
    """Run all, at most `window` at once and as many as have room for their connections."""
    free = connections
    running = 0
    ended = trio.Event()

    async def run(replay: Replay) -> None:
        nonlocal free, running, ended
        await replay.run()
        free += replay.connections
        running -= 1
        ended.set()

    async with trio.open_nursery() as nursery:
        for replay in replays:
            while running >= window or replay.connections > free:
                await ended.wait()
                ended = trio.Event()
            free -= replay.connections
            running += 1
            nursery.start_soon(run, replay)


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not sys.stderr.isatty(),
    )
