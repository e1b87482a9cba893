"""A small Redis Cluster for tests: two masters, each with half of the slots."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from storage.redis.cluster import CLUSTER_SLOTS
from tests.helpers.servers import Redis, redis
from tests.storage.redis.helpers import ask, hold_up_the_loop

HALF = CLUSTER_SLOTS // 2

OPTIONS = (
    *("--cluster-enabled", "yes", "--cluster-node-timeout", "15000"),
    # One that lost the other goes on with what it has.
    *("--cluster-require-full-coverage", "no", "--cluster-allow-pubsubshard-when-down", "yes"),
)


@contextmanager
def redis_cluster(folder: Path) -> Iterator[tuple[Redis, Redis]]:
    """Both, once each knows of all slots."""
    with ExitStack() as stack:
        one = stack.enter_context(redis(folder / "one", OPTIONS))
        two = stack.enter_context(redis(folder / "two", OPTIONS))
        ask(one.url, "CLUSTER", "ADDSLOTSRANGE", "0", str(HALF - 1))
        ask(two.url, "CLUSTER", "ADDSLOTSRANGE", str(HALF), str(CLUSTER_SLOTS - 1))
        ask(two.url, "CLUSTER", "SET-CONFIG-EPOCH", "2")
        ask(one.url, "CLUSTER", "MEET", "127.0.0.1", str(two.port))
        hold_up_the_loop(lambda: _knows_all(one) and _knows_all(two))
        yield one, two


def cluster_url(*servers: Redis) -> str:
    """For the setting `redis.url`: found by any of these."""
    return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers)


def _knows_all(server: Redis) -> bool:
    slots = ask(server.url, "CLUSTER", "SLOTS")
    return sum(
        last - first + 1 for first, last, *_ in slots
    ) == CLUSTER_SLOTS and b"cluster_state:ok" in ask(server.url, "CLUSTER", "INFO")
