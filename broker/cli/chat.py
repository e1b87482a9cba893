"""`parley chat`: a client for the terminal, good enough to show the broker to somebody."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import click
import trio

from broker.cli.accounts import accounts, checked, open_signing, session_tokens
from broker.cli.chat_screen import Pipe, Screen, Terminal
from broker.cli.chat_session import Chat
from broker.cli.failures import Failure, only_leaf
from broker.cli.options import with_config
from broker.client import Credentials, ParleyClientError, connect, login, refresh
from broker.config import Config
from broker.config_sources import Loaded
from broker.running import Address, reachable
from broker.security.tokens import now_ms

TOKEN_TTL_S = 86_400
RENEW_BEFORE_MS = 60_000

Token = str | Callable[[], Awaitable[str]]


class Target(NamedTuple):
    """What to open first; both may be missing."""

    room: str | None
    user: str | None


@click.command("chat", short_help="Chat in the terminal.")
@with_config()
@click.option("--as", "name", metavar="NAME", help="Who to be: by data directory or password.")
@click.option(
    "--token",
    metavar="TOKEN",
    envvar="PARLEY_TOKEN",
    help="A session token; better given as the variable PARLEY_TOKEN, which others cannot see.",
)
@click.option("--room", metavar="ROOM", help="Open g/12 or the public room of that title.")
@click.option("--with", "user", metavar="NAME", help="Open the conversation with a user.")
@click.option("--ca", metavar="FILE", type=Path, help="Trust this certificate authority (PEM).")
@click.argument("url", required=False)
def command(
    loaded: Loaded,
    name: str | None,
    token: str | None,
    room: str | None,
    user: str | None,
    ca: Path | None,
    url: str | None,
) -> None:
    """Chat with a broker at URL (ws://, wss://, tcp:// or tls://; by default the local one).

    With --as NAME on the broker's own machine the data directory vouches for you, and missing users
    are made; elsewhere you are asked for a password. /help lists what can be done. When standard
    input is no terminal, every line of it is sent and the end of it ends the chat.
    """
    if room and user:
        raise click.UsageError("--room and --with exclude each other")
    context = ssl.create_default_context(cafile=ca) if ca else None
    try:
        trio.run(_chat, loaded, url, name, token, Target(room, user), context)
    except (ParleyClientError, BaseExceptionGroup) as error:
        leaf = only_leaf(error)
        if isinstance(leaf, ParleyClientError):
            raise Failure(str(leaf)) from error
        raise


async def _chat(
    loaded: Loaded,
    url: str | None,
    name: str | None,
    token: str | None,
    target: Target,
    context: ssl.SSLContext | None,
) -> None:
    url = url or _local_url(loaded.config)
    credentials = token or await _credentials(loaded, url, name, target, context)
    screen: Screen = Terminal() if sys.stdin.isatty() and sys.stdout.isatty() else Pipe()
    async with connect(url, token=credentials, device="parley chat", ssl_context=context) as client:
        chat = Chat(client, screen)
        with screen.shown():
            if target.room:
                await chat.join(target.room)
            elif target.user:
                await chat.with_user(target.user)
            await chat.run()


async def _credentials(
    loaded: Loaded, url: str, name: str | None, target: Target, context: ssl.SSLContext | None
) -> Token:
    config = loaded.config
    if name and ("data" in loaded.origins or config.database.exists()):
        return await _own_token(config, checked(name), target)
    if not sys.stdin.isatty():
        raise Failure("who are you? Give --as NAME with --data DIR, or a token")
    name = name or click.prompt("Name", err=True)
    password = click.prompt("Password", hide_input=True, err=True)
    assert isinstance(name, str)
    return _renewing(url, await login(url, name, password, ssl_context=context), context)


async def _own_token(config: Config, name: str, target: Target) -> Callable[[], Awaitable[str]]:
    """Tokens made on the spot, a fresh one for each connection."""
    async with open_signing(config, create=False) as (store, secret):
        names = [name] if target.user is None else [name, target.user]
        users = await accounts(store, names, create=True)

    async def fresh() -> str:
        return session_tokens(secret, users[:1], TOKEN_TTL_S)[0]

    return fresh


def _renewing(
    url: str, credentials: Credentials, context: ssl.SSLContext | None
) -> Callable[[], Awaitable[str]]:
    """The token of a login, renewed when a connection is opened after it has expired."""

    async def current() -> str:
        nonlocal credentials
        if credentials.expires - RENEW_BEFORE_MS <= now_ms():
            credentials = await refresh(url, credentials.refresh, ssl_context=context)
        return credentials.token

    return current


def _local_url(config: Config) -> str:
    address = reachable(Address(config.http.host, config.http.port))
    return f"ws{'s' if config.tls.cert else ''}://{address}/ws"
