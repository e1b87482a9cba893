"""The group of all subcommands, and the one place where an expected failure becomes an exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration. Expected failures are told on standard
error without a traceback; a traceback is a defect.
"""

from __future__ import annotations

import errno
import importlib
from typing import Any

import click

from broker.cli.failures import Failure, Misconfigured, only_leaf
from broker.config_sources import ConfigError
from broker.security.secret import SecretError
from broker.wire.errors import Refusal
from storage.errors import StoreError, UnsafeSettings

COMMANDS = {
    "serve": ("broker.cli.serve", "Run the broker."),
    "chat": ("broker.cli.chat", "Chat in the terminal."),
    "user": ("broker.cli.user", "Add and list users, set passwords."),
    "token": ("broker.cli.token", "Print session tokens for users."),
    "schema": ("broker.cli.schema", "Make and show the tables in Cassandra."),
    "cluster": ("broker.cli.cluster", "Look at the nodes of a cluster."),
    "config": ("broker.cli.config", "Show the effective configuration."),
    "replay": ("broker.cli.replay", "Replay chat logs through a broker and prove the result."),
    "bench": ("broker.cli.bench", "Measure the broker against targets and baselines."),
}
"""Name → (module whose `command` it is, its line in the list), so that a list imports nothing."""


class LazyGroup(click.Group):
    """Imports a subcommand when it is called or asked for help, and not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Call a subcommand by its name in the table, whatever its function is called."""
        name, command, rest = super().resolve_command(ctx, args)
        return args[0] if command else name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of subcommands, from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; what it may fail with on purpose becomes one line and a code."""
        try:
            return super().invoke(ctx)
        except BaseExceptionGroup as group:
            raise _expected(only_leaf(group)) from group
        except (ConfigError, SecretError, StoreError, Refusal, OSError) as error:
            raise _expected(error) from error


def _expected(error: BaseException) -> BaseException:
    """The failure to show for an error that is no defect; any other error as it is."""
    match error:
        case ConfigError():
            intro = "the configuration cannot be used:"
            return Misconfigured("\n  ".join([intro, *error.problems]))
        case UnsafeSettings():
            return Misconfigured(str(error))
        case Refusal():
            return Failure(error.message)
        case OSError() if error.errno != errno.EPIPE:
            return Failure(_os_error(error))
        case SecretError() | StoreError():
            return Failure(str(error))
    return error


def _os_error(error: OSError) -> str:
    what = error.strerror or str(error)
    return f"{error.filename}: {what}" if error.filename else what


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.",
)
@click.version_option(package_name="parley", prog_name="parley")
def main() -> None:
    """Parley, a durable chat message broker.

    Begin with `parley serve`; it says how to go on.
    """
