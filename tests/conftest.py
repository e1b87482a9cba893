"""What tests of many folders share."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from storage.cassandra.session import Connected
from tests.helpers import servers
from tests.helpers.broker import Broker, running_broker
from tests.helpers.cassandra import connected

# How long an example takes says more of what else the machine does than of the example.
settings.register_profile("parley", settings(), deadline=None)
settings.load_profile("parley")


@pytest.fixture(scope="session")
def cassandra_url() -> Iterator[str]:
    """A Cassandra that all tests share; its keyspace is yet to be made."""
    if url := os.environ.get("PARLEY_TEST_CASSANDRA"):
        yield url
        return
    with servers.cassandra() as running:
        yield running.url


@pytest.fixture(scope="session")
def cassandra(cassandra_url: str) -> Iterator[Connected]:
    """A connection to a keyspace of these tests, for `tests.helpers.cassandra.empty_store`."""
    with connected(cassandra_url) as connection:
        yield connection


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis that all tests share: each has a prefix of its own, and none may FLUSHALL."""
    if url := os.environ.get("PARLEY_TEST_REDIS"):
        yield url
        return
    with servers.redis() as running:
        yield running.url


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    """A running broker with default settings and a store in memory."""
    async with running_broker(tmp_path) as broker:
        yield broker
