"""`parley serve`: run the broker in the foreground until a signal asks it to stop."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path

import click
import trio

from broker import logs
from broker.cli.failures import Failure
from broker.cli.options import Flag, with_config
from broker.config import Config
from broker.config_sources import Loaded
from broker.running import Running, reachable

FLAGS = (
    Flag("--http", ("http.host", "http.port"), "HOST:PORT", "HTTP and WebSocket. [127.0.0.1:7400]"),
    Flag("--tcp", ("tcp.host", "tcp.port"), "HOST:PORT", "TCP clients. [127.0.0.1:7440]"),
    Flag("--tls-cert", ("tls.cert",), "FILE", "Certificate chain (PEM): TLS on both ports."),
    Flag("--tls-key", ("tls.key",), "FILE", "Its private key (PEM)."),
    Flag("--max-connections", ("connections.max",), "N", "Connections at once."),
    Flag("--log-level", ("log.level",), "LEVEL", "debug, info, warning or error."),
    Flag("--log-format", ("log.format",), "FORMAT", "human or json."),
)


@click.command("serve", short_help="Run the broker.")
@with_config(*FLAGS)
def command(loaded: Loaded) -> None:
    """Run the broker until Ctrl-C or SIGTERM; a second signal stops without a drain.

    The data directory and its secret are made on the first start. Port 0 takes a free port; the
    real addresses are printed. All settings: `parley config show`.
    """
    logs.configure(loaded.config.log)
    if not trio.run(_serve, loaded.config):
        raise Failure("stopped without a drain")


async def _serve(config: Config) -> bool:
    """Run to the end; whether it was an orderly one."""
    from broker.app import run

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as outer:
            async with trio.open_nursery() as nursery:
                stop = _Stop(nursery.cancel_scope)
                outer.start_soon(stop.on_signals, signals)
                running: Running = await nursery.start(run, config)
                stop.running = running
                click.echo(_greeting(config, running))
            outer.cancel_scope.cancel()
    return not stop.at_once


class _Stop:
    """The first signal drains a running broker; the next, or one during start-up, cancels it."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self.running: Running | None = None
        self.at_once = False
        self._scope = scope
        self._draining = False

    async def on_signals(self, signals: AsyncIterator[int]) -> None:
        async for _ in signals:
            if self.running and not self._draining:
                self._draining = True
                click.echo("Draining; once more to stop at once.", err=True)
                self.running.stop()
            else:
                self.at_once = self._draining
                self._scope.cancel()


def _greeting(config: Config, running: Running) -> str:
    secure = "s" if config.tls.cert else ""
    http, tcp = reachable(running.http), reachable(running.tcp)
    url = f"ws{secure}://{http}/ws"
    chat = f"{_own_name()} chat {url} --data {shlex.quote(str(config.data))} --room lobby --as"
    own_ca = " (add --ca FILE for a certificate of your own making)" if secure else ""
    return "\n".join(
        [
            f"Parley {version('parley')} keeps its data in {config.data.absolute()}",
            f"  HTTP       http{secure}://{http}",
            f"  WebSocket  {url}",
            f"  TCP        {tcp}{' (TLS)' if secure else ''}",
            f"To chat, in two other terminals{own_ca}:",
            f"  {chat} alice",
            f"  {chat} bob",
            "Ctrl-C drains and stops.",
        ]
    )


def _own_name() -> str:
    """How this command was called, to be copied from the screen."""
    called = Path(sys.argv[0])
    if called.name != "parley":
        return f"{shlex.quote(os.path.relpath(sys.executable))} -m broker.cli"
    return shlex.quote(min(str(called), os.path.relpath(called), key=len))
