"""`parley schema`: the tables of a Cassandra, made or migrated when the operator says so.

No broker does that on its own: many nodes of two versions may run on one keyspace.
"""

from __future__ import annotations

import click
import trio

from broker.cli.options import with_config
from broker.config_sources import Loaded
from broker.stores import cassandra_settings


@click.group("schema", short_help="Make and show the tables in Cassandra.")
def command() -> None:
    """Make and show the tables in Cassandra; SQLite's are made by the broker itself."""


@command.command("apply", short_help="Make or migrate the keyspace and its tables.")
@with_config()
def apply(loaded: Loaded) -> None:
    """Make or migrate the keyspace and its tables; what is there already is left as it is.

    Once, from one place, before the first node of a new version is started.
    """
    from storage.cassandra import schema

    settings = cassandra_settings(loaded.config)
    taken = trio.run(schema.apply, settings)
    done = f"{taken} steps taken" if taken else "nothing was to be done"
    click.echo(f"{settings.where}: schema version {len(schema.steps())}, {done}")


@command.command("show", short_help="Print what apply would run, as CQL.")
@with_config()
def show(loaded: Loaded) -> None:
    """Print what apply would run on an empty Cassandra, as CQL. Connects to nothing."""
    from storage.cassandra import schema

    click.echo(schema.show(cassandra_settings(loaded.config)), nl=False)
