"""Options that several subcommands share, above all those that set settings."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from broker.config_sources import load

UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
DURATION_MAX_SECONDS = 3_660 * 86_400

Function = TypeVar("Function", bound=Callable[..., Any])


class Flag(NamedTuple):
    """An option that sets one key, or a host and a port from `HOST:PORT`."""

    option: str
    keys: tuple[str, ...]
    metavar: str
    help: str


DATA = Flag("--data", ("data",), "DIR", "Directory of the database and the secret.")


def with_config(*flags: Flag) -> Callable[[Function], Function]:
    """Add `--data`, `--config`, `--set` and `flags`; the command gets the `loaded` configuration.

    The command raises `ConfigError` before it begins if any source is wrong.
    """
    flags = (DATA, *flags)

    def decorate(command: Function) -> Function:
        @functools.wraps(command)
        def wrapper(**arguments: Any) -> Any:
            given = [
                triple
                for number, flag in enumerate(flags)
                if (text := arguments.pop(f"flag_{number}")) is not None
                for triple in _settings(flag, text)
            ]
            given += [_pair(pair) for pair in arguments.pop("pairs")]
            loaded = load(flags=given, environ=os.environ, file=arguments.pop("file"))
            return command(loaded=loaded, **arguments)

        decorated: Any = wrapper
        decorated = click.option(
            "--set",
            "pairs",
            multiple=True,
            metavar="KEY=VALUE",
            help="Set any setting, as outbox.high_bytes=2097152. May be repeated.",
        )(decorated)
        decorated = click.option(
            "--config",
            "file",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="TOML file of settings. Default: parley.toml in the data directory, if any.",
        )(decorated)
        for number, flag in reversed(list(enumerate(flags))):
            decorated = click.option(
                flag.option, f"flag_{number}", metavar=flag.metavar, help=flag.help
            )(decorated)
        result: Function = decorated
        return result

    return decorate


def _settings(flag: Flag, text: str) -> list[tuple[str, str, str]]:
    if len(flag.keys) == 1:
        return [(flag.keys[0], text, flag.option)]
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise click.BadParameter(
            f"{text!r} is not HOST:PORT (an IPv6 host goes in brackets)", param_hint=flag.option
        )
    values = (host.removeprefix("[").removesuffix("]"), port)
    return [(key, value, flag.option) for key, value in zip(flag.keys, values, strict=True)]


def _pair(pair: str) -> tuple[str, str, str]:
    key, equals, value = pair.partition("=")
    if not equals:
        raise click.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--set")
    return key, value, f"--set {key}"


def duration(text: str) -> int:
    """Seconds (at least 1) of `90s`, `15m`, `12h`, `7d`, or a plain number. For `type=`."""
    match = re.fullmatch(r"([0-9]{1,10})([smhd]?)", text)
    seconds = int(match[1]) * UNIT_SECONDS[match[2]] if match else 0
    if not 1 <= seconds <= DURATION_MAX_SECONDS:
        raise click.BadParameter(f"{text!r} is no duration such as 90s, 15m, 12h or 7d")
    return seconds
