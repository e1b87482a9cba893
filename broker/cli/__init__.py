"""The `parley` command. It starts fast: a subcommand's module is imported when it is called."""

from broker.cli.main import main

__all__ = ["main"]
