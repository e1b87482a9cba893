"""What an operator does with accounts, on the store itself; it works beside a running broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import islice

from broker import stores
from broker.cli.failures import Failure
from broker.config import Config
from broker.names import check_name
from broker.security.secret import load_secret
from broker.security.tokens import Tokens, new_session_id, now_ms
from broker.wire.errors import Refusal
from storage.errors import NameTaken
from storage.interfaces import Directory, Store, name_key
from storage.records import User

BATCH_USERS = 1_000
"""Accounts in one call of the store, so that a running broker never waits long for the writer."""
NAMES_SHOWN = 5


def open_store(config: Config, *, create: bool) -> AbstractAsyncContextManager[Store]:
    """The store of the settings. Raises `Failure` if it is embedded and there is none to open."""
    _prepare(config, create=create)
    return stores.open_store(config)


@asynccontextmanager
async def open_signing(config: Config, *, create: bool) -> AsyncIterator[tuple[Store, bytes]]:
    """Likewise, with the secret that signs for its users; another than the cluster's is refused."""
    _prepare(config, create=create)
    secret = load_secret(config.data)
    async with stores.open_store(config, secret=secret) as store:
        yield store, secret


def _prepare(config: Config, *, create: bool) -> None:
    if config.backend == "sqlite" and not create and not config.database.exists():
        raise Failure(f"{config.database} does not exist: no broker has run with this directory")
    config.data.mkdir(mode=0o700, parents=True, exist_ok=True)


async def accounts(directory: Directory, names: Sequence[str], *, create: bool) -> list[User]:
    """The account of each name, in order. Missing ones are made, without a password, or refused."""
    found: dict[str, User] = {}
    for batch in _batches(names):
        found |= await directory.users_by_name(batch)
    missing: dict[str, str] = {}
    for name in names:
        if (key := name_key(name)) not in found:
            missing.setdefault(key, name)
    if missing and not create:
        raise Failure(f"no such user: {_listed(list(missing.values()))} (--create makes users)")
    for batch in _batches(list(missing.values())):
        found |= await _create(directory, batch)
    disabled = [user.name for user in found.values() if user.disabled]
    if disabled:
        raise Failure(f"disabled: {_listed(disabled)}")
    return [found[name_key(name)] for name in names]


async def _create(directory: Directory, names: list[str]) -> dict[str, User]:
    for name in names:
        checked(name)
    users = [User(id=0, name=name, created=now_ms()) for name in names]
    try:
        created = await directory.create_users(users, [None] * len(users))
    except NameTaken:
        # Somebody registered one of them since we looked: then it exists, which is all we want.
        there = await directory.users_by_name(names)
        rest = [user for user in users if name_key(user.name) not in there]
        return there | _by_key(await directory.create_users(rest, [None] * len(rest)))
    return _by_key(created)


def session_tokens(secret: bytes, users: Sequence[User], ttl: int) -> list[str]:
    """A session token for each user, good for `ttl` seconds; each is a session of its own."""
    tokens = Tokens(secret, ttl)
    return [tokens.issue(user.id, new_session_id(), user.generation)[0] for user in users]


def checked(name: str) -> str:
    """The name, if a user may have it. Raises `Failure`."""
    try:
        check_name(name)
    except Refusal as refusal:
        raise Failure(f"{name!r}: {refusal.message}") from None
    return name


def _by_key(users: list[User]) -> dict[str, User]:
    return {name_key(user.name): user for user in users}


def _batches(names: Sequence[str]) -> Iterator[list[str]]:
    rest = iter(names)
    while batch := list(islice(rest, BATCH_USERS)):
        yield batch


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(repr(name) for name in names[:NAMES_SHOWN]) + more
