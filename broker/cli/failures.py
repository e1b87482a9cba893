"""Failures that the user is told about in a line, each kind with its exit code."""

from __future__ import annotations

import click


class Failure(click.ClickException):
    """Ends the command with its message on standard error and exit code 1."""

    exit_code = 1


class Misconfigured(Failure):
    """The configuration cannot be used: exit code 2, as for wrong usage."""

    exit_code = 2


def only_leaf(error: BaseException) -> BaseException:
    """What one task raised, out of the groups of its nurseries; several failures stay a group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
