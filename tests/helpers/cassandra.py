"""A Cassandra store for tests: one keyspace a session, emptied before each use."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import msgspec
import trio

from storage.cassandra import CassandraSettings, CassandraStore, parse_url, schema
from storage.cassandra.connection import connect
from storage.cassandra.session import Connected

KEPT = frozenset({"schema_version"})


@contextmanager
def own_keyspace(url: str) -> Iterator[CassandraSettings]:
    """Settings of a keyspace that nobody else has and that is dropped at the end."""
    name = f"parley_test_{secrets.token_hex(4)}"
    settings = msgspec.structs.replace(parse_url(url), keyspace=name)
    try:
        yield settings
    finally:
        cluster = connect(settings)
        cluster.connect().execute(f"DROP KEYSPACE IF EXISTS {name}", timeout=60)
        cluster.shutdown()


@contextmanager
def connected(url: str) -> Iterator[Connected]:
    """A connection to a keyspace of its own with the schema in it."""
    with own_keyspace(url) as settings:
        schema.apply_blocking(settings)
        found = Connected(settings)
        yield found
        found.close()


@asynccontextmanager
async def empty_store(connection: Connected) -> AsyncIterator[CassandraStore]:
    """A store with nothing in it."""
    await trio.to_thread.run_sync(_empty, connection)
    async with another_store(connection) as store:
        yield store


@asynccontextmanager
async def another_store(connection: Connected) -> AsyncIterator[CassandraStore]:
    """A store beside others on what they have written, as another process would have it."""
    store = CassandraStore(connection)
    try:
        yield store
    finally:
        await store.bridge.aclose()


def _empty(connection: Connected) -> None:
    session = connection.session
    keyspace = connection.settings.keyspace
    names = session.cluster.metadata.keyspaces[keyspace].tables.keys() - KEPT
    # Emptying a table takes 40 ms also if it is empty; a look takes one.
    looks = {
        name: session.execute_async(f"SELECT * FROM {keyspace}.{name} LIMIT 1") for name in names
    }
    full = [name for name, look in looks.items() if look.result().one() is not None]
    for done in [session.execute_async(f"TRUNCATE {keyspace}.{name}", timeout=60) for name in full]:
        done.result()
