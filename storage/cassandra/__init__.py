"""The durable store of many processes: Cassandra, through the driver's own threads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from storage.cassandra.session import Connected
from storage.cassandra.settings import CassandraSettings, parse_url
from storage.cassandra.store import CassandraStore
from storage.errors import UnsafeSettings
from storage.opening import opened

__all__ = ["CassandraSettings", "CassandraStore", "open_cassandra", "parse_url"]

PLACE_NAME = "place"
"""Under which processes agree where conditional writes are decided."""
EVERYWHERE = "all data centres"
"""The place where no single data centre decides; no name of one has a blank."""


@asynccontextmanager
async def open_cassandra(
    settings: CassandraSettings, *, only_look: bool = False
) -> AsyncIterator[CassandraStore]:
    """The store in a keyspace, whose schema must be there (`storage.cassandra.schema.apply`).

    `only_look`: nothing is written, so that it need not be where the others decide.

    On leaving, what is under way has been answered or given up. Raises `Unavailable` (naming the
    cluster) where it cannot be reached, refuses the login, or has no schema; `SchemaTooNew`;
    `UnsafeSettings`.
    """
    connected = await opened(partial(Connected, settings))
    try:
        store = CassandraStore(connected)
        try:
            if not only_look:
                await _check_place(store, connected)
            yield store
        finally:
            await store.bridge.aclose()
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(connected.close)


async def _check_place(store: CassandraStore, connected: Connected) -> None:
    """Let the first one's data centre be that of all: each decides its conditional writes alone."""
    ours = connected.place or EVERYWHERE
    if (theirs := await store.agree(PLACE_NAME, ours)) != ours:
        raise UnsafeSettings(
            f"{connected.settings.where}: dc: this cluster's leases and names are decided in"
            f" {theirs}, and with these settings they would be in {ours}"
        )
