"""`parley token`: session tokens for operators and load tests, straight from the data directory."""

from __future__ import annotations

import sys

import click
import trio

from broker.cli.accounts import accounts, open_signing, session_tokens
from broker.cli.failures import Failure
from broker.cli.options import duration, with_config
from broker.config import Config
from broker.config_sources import Loaded

NAMES_MAX = 1_000_000
STDIN_MAX_BYTES = 256 << 20


@click.command("token", short_help="Print session tokens for users.")
@with_config()
@click.option("--create", is_flag=True, help="Make missing users, without a password.")
@click.option("--ttl", type=duration, default="24h", show_default=True, help="Life of the tokens.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def command(loaded: Loaded, create: bool, ttl: int, names: tuple[str, ...]) -> None:
    """Print a session token for each NAME, a line each, in order.

    The name - stands for the lines of standard input. Works beside a running broker. Who can read
    the data directory can be anybody: these tokens need no password and cannot be refreshed.
    """
    wanted = [name for given in names for name in (_from_stdin() if given == "-" else [given])]
    if len(wanted) > NAMES_MAX:
        raise Failure(f"more than {NAMES_MAX} names")
    tokens = trio.run(_tokens, loaded.config, wanted, create, ttl)
    click.echo("".join(f"{token}\n" for token in tokens), nl=False)


async def _tokens(config: Config, names: list[str], create: bool, ttl: int) -> list[str]:
    async with open_signing(config, create=create) as (store, secret):
        users = await accounts(store, names, create=create)
    return session_tokens(secret, users, ttl)


def _from_stdin() -> list[str]:
    try:
        return sys.stdin.buffer.read(STDIN_MAX_BYTES).decode().splitlines()
    except UnicodeDecodeError as error:
        raise Failure(f"standard input is not UTF-8 (byte {error.start})") from None
