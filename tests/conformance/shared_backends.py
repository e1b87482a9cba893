"""Every backend of what nodes share, each behind the same fixtures. A new one is one more entry."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import pytest
import trio

from storage.memory import MemoryEphemeral, MemoryLeases, MemoryNetwork, MemoryPresence
from storage.redis import open_redis
from storage.shared import Bus, Ephemeral, Leases, PresenceStore
from tests.helpers.cassandra import empty_store
from tests.storage.redis.clusters import cluster_url, redis_cluster


class Passing(Protocol):
    """Lets this much of the backend's time pass."""

    async def __call__(self, ms: int) -> None: ...


class BusOpener(Protocol):
    """Opens a node's end of one and the same bus; it stays open until the test ends."""

    async def __call__(self, inbox: str) -> Bus: ...


@dataclass
class Shared:
    """One backend: what the nodes of a test share, and its clock."""

    presence: PresenceStore
    ephemeral: Ephemeral
    bus: BusOpener
    passing: Passing


Opening = Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Shared]]
LeasesOpening = Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Leases]]


@asynccontextmanager
async def _memory(_: pytest.FixtureRequest) -> AsyncIterator[Shared]:
    now = 1000.0
    network = MemoryNetwork()

    async def bus(inbox: str) -> Bus:
        return network.bus(inbox)

    async def passing(ms: int) -> None:
        nonlocal now
        await trio.lowlevel.checkpoint()
        now += ms / 1000

    yield Shared(MemoryPresence(lambda: now), MemoryEphemeral(lambda: now), bus, passing)


@pytest.fixture(scope="session")
def redis_cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis Cluster that all tests share, as they share `redis_url`."""
    with redis_cluster(tmp_path_factory.mktemp("redis-cluster")) as servers:
        yield cluster_url(*servers)


@asynccontextmanager
async def _over_redis(url: str) -> AsyncIterator[Shared]:
    prefix = f"test-{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack:

        async def bus(inbox: str) -> Bus:
            opened = open_redis(url, inbox=inbox, prefix=prefix)
            return (await stack.enter_async_context(opened)).bus

        async def passing(ms: int) -> None:
            await trio.sleep(ms / 1000)

        node = await stack.enter_async_context(open_redis(url, inbox="node", prefix=prefix))
        yield Shared(node.presence, node.ephemeral, bus, passing)


def _redis(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[Shared]:
    return _over_redis(request.getfixturevalue("redis_url"))


def _redis_cluster(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[Shared]:
    return _over_redis(request.getfixturevalue("redis_cluster_url"))


@asynccontextmanager
async def _memory_leases(_: pytest.FixtureRequest) -> AsyncIterator[Leases]:
    yield MemoryLeases()


@asynccontextmanager
async def _cassandra_leases(request: pytest.FixtureRequest) -> AsyncIterator[Leases]:
    async with empty_store(request.getfixturevalue("cassandra")) as store:
        yield store


SHARED: dict[str, Opening] = {
    "memory": _memory,
    "redis": _redis,
    "redis-cluster": _redis_cluster,
}
LEASES: dict[str, LeasesOpening] = {"memory": _memory_leases, "cassandra": _cassandra_leases}


@pytest.fixture(params=list(SHARED))
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[Shared]:
    """Presence, bus and ephemeral state of one backend, with nothing in them."""
    async with SHARED[request.param](request) as opened:
        yield opened


@pytest.fixture(params=list(LEASES))
async def leases(request: pytest.FixtureRequest) -> AsyncIterator[Leases]:
    """Leases of one backend: nobody has come, and no slot was ever claimed."""
    async with LEASES[request.param](request) as opened:
        yield opened


@pytest.fixture
def presence(shared: Shared) -> PresenceStore:
    return shared.presence


@pytest.fixture
def ephemeral(shared: Shared) -> Ephemeral:
    return shared.ephemeral


@pytest.fixture
def passing(shared: Shared) -> Passing:
    return shared.passing


@pytest.fixture
def open_bus(shared: Shared) -> BusOpener:
    return shared.bus
