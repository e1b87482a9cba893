"""`parley user`: accounts, straight from the data directory."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import click
import trio

from broker.cli.accounts import BATCH_USERS, checked, open_store
from broker.cli.failures import Failure
from broker.cli.options import with_config
from broker.config import Config
from broker.config_sources import Loaded
from broker.security.passwords import Passwords
from broker.security.tokens import now_ms
from broker.wire.limits import PASSWORD_MAX_CHARS, PASSWORD_MIN_CHARS
from storage.errors import NameTaken
from storage.interfaces import Directory, name_key
from storage.records import User

password_stdin = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input, one line."
)


@click.group("user", short_help="Add and list users, set passwords.")
def command() -> None:
    """Add and list users, set passwords. Works beside a running broker."""


@command.command("add", short_help="Add a user with a password.")
@with_config()
@password_stdin
@click.option("--nickname", default="", help="How others see the user.")
@click.argument("name")
def add(loaded: Loaded, name: str, nickname: str, password_stdin: bool) -> None:
    """Add the user NAME; the password is asked for, or read from standard input."""
    checked(name)
    user = trio.run(_add, loaded.config, name, nickname, _new_password(password_stdin))
    click.echo(f"added {user.name} with id {user.id}")


@command.command("passwd", short_help="Set a new password and end all sessions.")
@with_config()
@password_stdin
@click.argument("name")
def passwd(loaded: Loaded, name: str, password_stdin: bool) -> None:
    """Set a new password for NAME and end all sessions of the user."""
    trio.run(_set_password, loaded.config, name, _new_password(password_stdin))
    click.echo(f"set; all earlier sessions of {name} have ended")


@command.command("list", short_help="List all users.")
@with_config()
def list_users(loaded: Loaded) -> None:
    """List all users: id, name, nickname, made, last seen, state; between tabs, by id."""
    trio.run(_print_users, loaded.config)


def _new_password(from_stdin: bool) -> str:
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    if not PASSWORD_MIN_CHARS <= len(password) <= PASSWORD_MAX_CHARS:
        raise Failure(f"a password has {PASSWORD_MIN_CHARS} to {PASSWORD_MAX_CHARS} characters")
    return password


async def _add(config: Config, name: str, nickname: str, password: str) -> User:
    hashed = await Passwords(config.passwords).hash(password)
    async with open_store(config, create=True) as store:
        user = User(id=0, name=name, nickname=nickname, created=now_ms())
        try:
            return (await store.create_users([user], [hashed]))[0]
        except NameTaken:
            raise Failure(f"{name!r} is taken") from None


async def _set_password(config: Config, name: str, password: str) -> None:
    hashed = await Passwords(config.passwords).hash(password)
    async with open_store(config, create=False) as store:
        user = (await store.users_by_name([name])).get(name_key(name))
        if user is None:
            raise Failure(f"no such user: {name!r}")
        await store.set_password(user.id, hashed)


async def _print_users(config: Config) -> None:
    async with open_store(config, create=False) as store:
        async for user in _every_user(store):
            state = "disabled" if user.disabled else "active"
            columns = (user.name, user.nickname, _date(user.created), _date(user.last_seen), state)
            click.echo("\t".join([str(user.id), *columns]))


async def _every_user(directory: Directory) -> AsyncIterator[User]:
    last = 0
    while page := await directory.list_users(after=last, limit=BATCH_USERS):
        for user in page:
            yield user
        last = page[-1].id


def _date(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if ms else "-"
