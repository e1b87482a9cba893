"""The durable store of many processes: Cassandra, through the driver's own threads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from storage.cassandra.session import Connected
from storage.cassandra.settings import CassandraSettings, parse_url
from storage.cassandra.store import CassandraStore

__all__ = ["CassandraSettings", "CassandraStore", "open_cassandra", "parse_url"]


@asynccontextmanager
async def open_cassandra(settings: CassandraSettings) -> AsyncIterator[CassandraStore]:
    """The store in a keyspace, whose schema must be there (`storage.cassandra.schema.apply`).

    On leaving, what is under way has been answered or given up. Raises `Unavailable` (naming the
    cluster) where it cannot be reached, refuses the login, or has no schema; `SchemaTooNew`.
    """
    connected = await trio.to_thread.run_sync(Connected, settings)
    try:
        store = CassandraStore(connected)
        try:
            yield store
        finally:
            await store.bridge.aclose()
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(connected.close)
