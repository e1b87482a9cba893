"""Every backend of the store, each behind the same fixture. A new backend is one more entry."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from storage.cassandra.session import Connected
from storage.interfaces import Store
from storage.memory import MemoryStore
from storage.sqlite import open_sqlite
from tests.conformance.shared_backends import *  # noqa: F403 - fixtures are found by their names
from tests.helpers.cassandra import empty_store

Opener = Callable[[Path], AbstractAsyncContextManager[Store]]


@asynccontextmanager
async def _memory(_: Path) -> AsyncIterator[Store]:
    yield MemoryStore()


@asynccontextmanager
async def _sqlite(folder: Path) -> AsyncIterator[Store]:
    async with open_sqlite(folder / "store.sqlite", exclusive=True) as store:
        yield store


@asynccontextmanager
async def _sqlite_shared(folder: Path) -> AsyncIterator[Store]:
    async with open_sqlite(folder / "store.sqlite") as store:
        yield store


@asynccontextmanager
async def _sqlite_merging(folder: Path) -> AsyncIterator[Store]:
    """Merges its chunks all the time, which otherwise only a loaded store does."""
    with patch("storage.sqlite.pieces.MERGE_ROWS", 3):
        async with open_sqlite(folder / "store.sqlite", exclusive=True) as store:
            yield store


BACKENDS: dict[str, Opener] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "sqlite-shared": _sqlite_shared,
    "sqlite-merging": _sqlite_merging,
}


@pytest.fixture(params=[*BACKENDS, "cassandra"])
def open_store(request: pytest.FixtureRequest) -> Opener:
    """Opens a store of one backend in an empty folder."""
    if request.param == "cassandra":
        connection: Connected = request.getfixturevalue("cassandra")
        return lambda _: empty_store(connection)
    return BACKENDS[request.param]


@pytest.fixture
async def store(open_store: Opener, tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path) as opened:
        yield opened
