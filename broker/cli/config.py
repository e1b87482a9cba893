"""`parley config show`: what the broker would run with, and why."""

from __future__ import annotations

import click

from broker.cli.options import with_config
from broker.config_sources import Loaded, as_toml


@click.group("config", short_help="Show the effective configuration.")
def command() -> None:
    """Show the effective configuration.

    Settings come from defaults, one TOML file, PARLEY_* variables (PARLEY_OUTBOX__HIGH_BYTES sets
    outbox.high_bytes) and flags; the later wins.
    """


@command.command("show", short_help="Print all settings, and where from.")
@with_config()
def show(loaded: Loaded) -> None:
    """Print all settings as TOML; those that are not the default with their origin."""
    click.echo(as_toml(loaded), nl=False)
