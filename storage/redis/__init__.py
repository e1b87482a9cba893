"""What nodes share through Redis: bus, presence and ephemeral state. Nothing durable is kept in it.

Two threads: one sends all commands in pipelines, one listens at the node's inbox.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic

from storage.opening import opened
from storage.redis import routes
from storage.redis.bus import ChannelNames, RedisBus
from storage.redis.ephemeral import RedisEphemeral
from storage.redis.pipeline import Pipeline, PipelineStatistics
from storage.redis.presence import RedisPresence
from storage.redis.settings import parse_url

__all__ = ["RedisShared", "open_redis"]

PING_TTL_MS = b"1000"


class RedisShared:
    """A node's ends of what is shared; made by `open_redis`."""

    def __init__(self, pipeline: Pipeline, bus: RedisBus, prefix: str) -> None:
        self._pipeline = pipeline
        self._ping_key = f"{prefix}:ping".encode()
        self.bus = bus
        self.presence = RedisPresence(pipeline, prefix, monotonic)
        self.ephemeral = RedisEphemeral(pipeline, prefix)

    async def ping(self) -> None:
        """Prove that Redis takes writes now. Raises `Unavailable`."""
        await self._pipeline.run([(b"SET", self._ping_key, b"1", b"PX", PING_TTL_MS)])

    def statistics(self) -> PipelineStatistics:
        """Of the commands; those of the bus are its own."""
        return self._pipeline.statistics()


@asynccontextmanager
async def open_redis(url: str, *, inbox: str, prefix: str = "parley") -> AsyncIterator[RedisShared]:
    """Connect, and listen at this inbox; from then on Redis may come and go.

    All keys and channels begin with `prefix`. Raises `ValueError` for a URL that cannot be, and
    `Unavailable` where Redis cannot be reached or does not let us in. See `storage.redis.settings`.
    """
    settings = parse_url(url)
    if not prefix or "{" in prefix or "}" in prefix:
        raise ValueError("a prefix for Redis is not empty and has no braces")
    names = ChannelNames(prefix, sharded=settings.kind == "cluster")
    find = partial(routes.find, settings)
    subscribe = partial(routes.subscribe, settings, [names.inbox(inbox), names.beats(inbox)])
    route = await opened(find)
    try:
        listening = await opened(subscribe)
    except BaseException:
        route.close()
        raise
    pipeline = Pipeline(route, find)
    bus = RedisBus(pipeline, names, inbox, listening, subscribe)
    try:
        yield RedisShared(pipeline, bus, prefix)
    finally:
        await bus.aclose()
        await pipeline.aclose()
