"""Opening what the settings name: the store, and with Cassandra what the nodes of a cluster share.

Combinations that cannot be safe were refused with the configuration; here it is refused what only
the stores themselves can tell. Runs nothing of its own; no URL gets into a message or a log.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.config import Config
from broker.config_sources import ConfigError
from broker.security.secret import SECRET_FILE, SecretError
from storage.errors import Unavailable
from storage.interfaces import Store
from storage.shared import Bus, Ephemeral, Leases, PresenceStore

if TYPE_CHECKING:
    from storage.cassandra import CassandraStore
    from storage.cassandra.settings import CassandraSettings
    from storage.redis.settings import RedisSettings

log = logging.getLogger("parley.stores")

SECRET_NAME = "secret"
"""Under which the nodes agree on a fingerprint of what signs their tokens."""
CLUSTER_NAME = "cluster"
"""Likewise, on a name by chance that tells this cluster from any other."""
NAMES_NAME = "redis.prefix"
"""Likewise, on where their names are in Redis."""


@dataclass(frozen=True, slots=True)
class Stores:
    """All that a node works on. The last four are None where the broker is one process."""

    store: Store
    leases: Leases | None = None
    presence: PresenceStore | None = None
    bus: Bus | None = None
    ephemeral: Ephemeral | None = None


class ClaimingPresence:
    """A `PresenceStore` of a cluster that claims its Redis again when that may have lost all it
    held: else another cluster would be let in beside it."""

    def __init__(self, presence: PresenceStore, ephemeral: Ephemeral, cluster: str) -> None:
        self._presence = presence
        self._ephemeral = ephemeral
        self._cluster = cluster
        self._due = False
        self.update = presence.update
        self.online = presence.online
        self.forget = presence.forget

    async def keep_alive(self, incarnation: str, ttl_ms: int) -> bool:
        """See `PresenceStore.keep_alive`."""
        kept = await self._presence.keep_alive(incarnation, ttl_ms)
        self._due = self._due or not kept
        if self._due:
            with suppress(Unavailable):  # presence is kept all the same, and the next time is soon
                await self._claim()
        return kept

    async def _claim(self) -> None:
        if await self._ephemeral.claim(self._cluster) != self._cluster:
            log.error("another cluster has claimed our Redis after it lost what it held")
        self._due = False


@asynccontextmanager
async def open_stores(config: Config, *, incarnation: str, secret: bytes) -> AsyncIterator[Stores]:
    """Everything that a node named `incarnation` serves from, for the length of a block.

    A SQLite file is this process's alone. Raises `ConfigError` for a URL that is none and for a
    Redis that is not the cluster's, `SecretError` if the cluster signs with another secret, and
    `StoreError` or `OSError` if something cannot be opened.
    """
    if config.backend == "sqlite":
        from storage.sqlite import open_sqlite

        async with open_sqlite(config.database, exclusive=True) as store:
            yield Stores(store)
        return
    from storage.redis import open_redis

    settings = _redis_settings(config)
    async with _open_cassandra(config) as store:
        await check_secret(store, secret)
        url, prefix = config.redis.url, config.redis.prefix
        async with open_redis(url, inbox=incarnation, prefix=prefix) as redis:
            await redis.ping()
            # In this order: who gets the default prefix refused can still choose another.
            ours = await check_claim(store, redis.ephemeral)
            await check_names(store, prefix, settings.db)
            presence = ClaimingPresence(redis.presence, redis.ephemeral, ours)
            yield Stores(store, store, presence, redis.bus, redis.ephemeral)


@asynccontextmanager
async def open_store(config: Config, *, secret: bytes | None = None) -> AsyncIterator[Store]:
    """The store alone, beside whatever runs on it. Raises as `open_stores` does.

    With `secret`, it must be the one that the nodes sign with.
    """
    if config.backend == "sqlite":
        from storage.sqlite import open_sqlite

        async with open_sqlite(config.database, exclusive=False) as embedded:
            yield embedded
        return
    async with _open_cassandra(config) as store:
        if secret is not None:
            await check_secret(store, secret)
        yield store


def open_leases(config: Config) -> AbstractAsyncContextManager[Leases]:
    """What a cluster knows of its nodes, to be read only. Raises `ConfigError` where there can be
    no cluster."""
    if config.backend == "sqlite":
        raise ConfigError(["store.url: SQLite is one process's own, so there is no cluster"])
    return _open_cassandra(config, only_look=True)


def cassandra_settings(config: Config) -> CassandraSettings:
    """The store's URL, read. Raises `ConfigError`."""
    from storage.cassandra.settings import parse_url

    if config.backend != "cassandra":
        raise ConfigError(["store.url: no cassandra:// is named; SQLite needs no preparation"])
    try:
        return parse_url(config.store.url)
    except ValueError as error:
        raise ConfigError([f"store.url: {error}"]) from None


async def check_secret(leases: Leases, secret: bytes) -> None:
    """Let the first node's secret be that of all. Raises `SecretError` if ours is another one.

    What is kept is a SHA-256 of 256 random bits or more, from which nobody gets them back.
    """
    ours = hashlib.sha256(b"parley " + secret).hexdigest()
    if await leases.agree(SECRET_NAME, ours) != ours:
        raise SecretError(
            f"the nodes of this cluster sign with another secret: copy `{SECRET_FILE}` from the "
            "data directory of one of them"
        )


async def check_claim(leases: Leases, ephemeral: Ephemeral) -> str:
    """Claim what is shared by Redis for this cluster, whose name it returns. Raises `ConfigError`
    if it is another's."""
    ours = await leases.agree(CLUSTER_NAME, secrets.token_hex(8))
    if await ephemeral.claim(ours) != ours:
        raise ConfigError(
            ["redis.prefix: another cluster uses this Redis with the same prefix, or did so before"]
        )
    return ours


async def check_names(leases: Leases, prefix: str, db: int) -> None:
    """Let all find each other in Redis where the first node is. Raises `ConfigError` elsewhere."""
    ours = f"{prefix} in database {db}"
    theirs = await leases.agree(NAMES_NAME, ours)
    if theirs != ours:
        raise ConfigError([f"redis.prefix: the nodes of this cluster have another: {theirs}"])


def _open_cassandra(
    config: Config, *, only_look: bool = False
) -> AbstractAsyncContextManager[CassandraStore]:
    from storage.cassandra import open_cassandra

    return open_cassandra(cassandra_settings(config), only_look=only_look)


def _redis_settings(config: Config) -> RedisSettings:
    from storage.redis.settings import parse_url

    try:
        return parse_url(config.redis.url)
    except ValueError as error:
        raise ConfigError([f"redis.url: {error}"]) from None
