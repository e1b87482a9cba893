"""`parley serve`: run the broker in the foreground until a signal asks it to stop."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import click
import trio
from msgspec.structs import replace

from broker import logs
from broker.cli.failures import Failure
from broker.cli.options import Flag, with_config
from broker.config import Config, shown
from broker.config_sources import Loaded
from broker.running import Address, Running, reachable

FLAGS = (
    Flag("--http", ("http.host", "http.port"), "HOST:PORT", "HTTP and WebSocket. [127.0.0.1:7400]"),
    Flag("--tcp", ("tcp.host", "tcp.port"), "HOST:PORT", "TCP clients. [127.0.0.1:7440]"),
    Flag("--tls-cert", ("tls.cert",), "FILE", "Certificate chain (PEM): TLS on both ports."),
    Flag("--tls-key", ("tls.key",), "FILE", "Its private key (PEM)."),
    Flag("--workers", ("cluster.workers",), "N", "Processes, each a node; with Cassandra. [1]"),
    Flag("--max-connections", ("connections.max",), "N", "Connections at once."),
    Flag("--log-level", ("log.level",), "LEVEL", "debug, info, warning or error."),
    Flag("--log-format", ("log.format",), "FORMAT", "human or json."),
)


@click.command("serve", short_help="Run the broker.")
@with_config(*FLAGS)
@click.option("--worker", type=int, hidden=True)
def command(loaded: Loaded, worker: int | None) -> None:
    """Run the broker until Ctrl-C or SIGTERM; a second signal stops without a drain.

    The data directory and its secret are made on the first start. Port 0 takes a free port; the
    real addresses are printed. All settings: `parley config show`.
    """
    config = loaded.config
    logs.configure(config.log)
    if worker is not None:
        in_order = trio.run(_serve, config_of_worker(config, worker), True)
    elif config.cluster.workers > 1:
        in_order = _serve_by_workers(config)
    else:
        in_order = trio.run(_serve, config)
    if not in_order:
        raise Failure("stopped without a drain")


def config_of_worker(config: Config, number: int) -> Config:
    """The configuration of one worker: a node of its own name, and with a port of its own if so."""
    own = config.worker_http_ports
    cluster = replace(
        config.cluster,
        node=f"{config.node_name}-{number}",
        worker_http_port=own[number - 1] if own else 0,
    )
    return replace(config, cluster=cluster)


def _serve_by_workers(config: Config) -> bool:
    from broker.cli.workers import check_ports, supervise, worker_command

    check_ports(config)
    own = [sys.executable, *(sys.argv if _is_installed() else ["-m", "broker.cli", *sys.argv[1:]])]
    commands = {
        config_of_worker(config, number).node_name: worker_command(own, number)
        for number in range(1, config.cluster.workers + 1)
    }
    running = Running(
        http=Address(config.http.host, config.http.port),
        tcp=Address(config.tcp.host, config.tcp.port),
        stop=lambda: None,
    )

    def greet() -> None:
        click.echo(_greeting(config, running))

    return trio.run(partial(supervise, commands, on_ready=greet))


async def _serve(config: Config, as_worker: bool = False) -> bool:
    """Run to the end; whether it was an orderly one."""
    from broker.app import run

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as outer:
            async with trio.open_nursery() as nursery:
                stop = _Stop(nursery.cancel_scope, as_worker)
                outer.start_soon(stop.on_signals, signals)
                running: Running = await nursery.start(run, config)
                stop.running = running
                if as_worker:
                    outer.start_soon(stop.when_orphaned)
                    click.echo("ready")
                else:
                    click.echo(_greeting(config, running))
            outer.cancel_scope.cancel()
    return not stop.at_once


class _Stop:
    """The first signal drains a running broker; the next, or one during start-up, cancels it.

    To a worker, SIGTERM is one word however often it comes: whoever stops a service may say it to
    every process of it, and the parent says it again. Its parent's word for "at once" is SIGINT.
    """

    def __init__(self, scope: trio.CancelScope, as_worker: bool) -> None:
        self.running: Running | None = None
        self.at_once = False
        self._scope = scope
        self._as_worker = as_worker
        self._draining = False

    async def on_signals(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if self.running is None or self._insists(number):
                self.at_once = self.running is not None
                self._scope.cancel()
            elif not self._draining:
                self._draining = True
                click.echo("Draining; once more to stop at once.", err=True)
                self.running.stop()

    def _insists(self, number: int) -> bool:
        return number == signal.SIGINT if self._as_worker else self._draining

    async def when_orphaned(self) -> None:
        """Drain a worker whose parent is gone: its standard input ends with it."""
        assert self.running is not None
        await trio.lowlevel.wait_readable(sys.stdin)
        self.running.stop()


def _greeting(config: Config, running: Running) -> str:
    secure = "s" if config.tls.cert else ""
    http, tcp = reachable(running.http), reachable(running.tcp)
    url = f"ws{secure}://{http}/ws"
    embedded = config.backend == "sqlite" and not config.store.url
    where = config.data.absolute() if embedded else shown(config, "store.url")
    chat = f"{_own_name()} chat {url} --data {shlex.quote(str(config.data))} --room lobby --as"
    own_ca = " (add --ca FILE for a certificate of your own making)" if secure else ""
    return "\n".join(
        [
            f"Parley {version('parley')} keeps its data in {where}",
            f"  HTTP       http{secure}://{http}",
            f"  WebSocket  {url}",
            f"  TCP        {tcp}{' (TLS)' if secure else ''}",
            *([f"  Workers    {workers}"] if (workers := config.cluster.workers) > 1 else []),
            *_own_ports(config, f"http{secure}"),
            f"To chat, in two other terminals{own_ca}:",
            f"  {chat} alice",
            f"  {chat} bob",
            "Ctrl-C drains and stops.",
        ]
    )


def _own_ports(config: Config, scheme: str) -> Iterator[str]:
    if ports := config.worker_http_ports:
        first = reachable(Address(config.http.host, ports[0]))
        yield f"  Each alone {scheme}://{first} to :{ports[-1]}"


def _own_name() -> str:
    """How this command was called, to be copied from the screen."""
    called = Path(sys.argv[0])
    if not _is_installed():
        return f"{shlex.quote(os.path.relpath(sys.executable))} -m broker.cli"
    return shlex.quote(min(str(called), os.path.relpath(called), key=len))


def _is_installed() -> bool:
    """Whether this was called as `parley`, and not by `python -m`."""
    return Path(sys.argv[0]).name == "parley"
