"""Who is connected where: one hash for each user, with a field for each node that they are on.

A field counts while its node's own key lives, so that a node's death takes all its users offline
without a write each. Whoever comes upon a field of a dead node removes it, unless it was written
again meanwhile. Commands name one key each, for a cluster's sake. Redis must not evict keys.

What a Redis may have lost is written again: after each interruption, and once a week, `keep_alive`
asks for it. So a hash may expire, as garbage, after a month in which nobody touched it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec import Struct

from storage.redis.link import Command
from storage.redis.pipeline import Pipeline

UPDATE_MAX_USERS = 250
"""In one call to the pipeline, of two commands each; more are several calls, one after another."""

ONLINE_MAX_USERS = 500
"""Likewise, of one command each."""

KEPT_S = 30 * 24 * 3600
"""A user's hash is forgotten when it was not written for so long: its nodes died, and nobody
looked."""

REWRITTEN_S = 7 * 24 * 3600
"""A living node is asked to write all its entries again when they are this old."""

_REMOVE_DEAD = (
    b"if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then"
    b" return redis.call('HDEL', KEYS[1], ARGV[1]) end return 0"
)


class _Life(Struct):
    """A time in which a node's entries were safe: no interruption since, and written after."""

    interruptions: int
    since: float


class RedisPresence:
    """`storage.shared.PresenceStore`; `now` is a monotonic clock in seconds."""

    def __init__(self, pipeline: Pipeline, prefix: str, now: Callable[[], float]) -> None:
        self._pipeline = pipeline
        self._prefix = prefix
        self._now = now
        self._lives: dict[str, _Life] = {}
        self._stamps: dict[str, bytes] = {}
        """By node, what its fields hold now: tells those of an earlier life from those of this."""

    async def keep_alive(self, incarnation: str, ttl_ms: int) -> bool:
        # Taken out first: if this call is cancelled or in doubt, the next one must say False.
        life = self._lives.pop(incarnation, None)
        command: Command = (b"SET", self._node(incarnation), b"1", b"PX", str(ttl_ms), b"GET")
        (before,) = await self._pipeline.run([command])
        interruptions, now = self._pipeline.interruptions, self._now()
        if (
            life is not None
            and before is not None
            and life.interruptions == interruptions
            and now - life.since < REWRITTEN_S
        ):
            self._lives[incarnation] = life
            return True
        self._lives[incarnation] = _Life(interruptions, now)
        self._stamps[incarnation] = _stamp()
        return False

    async def update(self, incarnation: str, *, here: Iterable[int], gone: Iterable[int]) -> None:
        stamp = self._stamps.setdefault(incarnation, _stamp())
        node, kept = incarnation.encode(), str(KEPT_S).encode()
        for users in _slices(list(here), UPDATE_MAX_USERS):
            commands: list[Command] = []
            for user in users:
                key = self._user(user)
                commands.append((b"HSET", key, node, stamp))
                commands.append((b"EXPIRE", key, kept))
            await self._pipeline.run(commands)
        for users in _slices(list(gone), ONLINE_MAX_USERS):
            await self._pipeline.run([(b"HDEL", self._user(user), node) for user in users])

    async def online(self, users: Iterable[int]) -> set[int]:
        nodes_of: dict[int, dict[bytes, bytes]] = {}
        for some in _slices(list(set(users)), ONLINE_MAX_USERS):
            answers = await self._pipeline.run([(b"HGETALL", self._user(user)) for user in some])
            for user, pairs in zip(some, answers, strict=True):
                if pairs:
                    nodes_of[user] = dict(zip(pairs[::2], pairs[1::2], strict=True))
        living = await self._living({node for nodes in nodes_of.values() for node in nodes})
        for user, nodes in nodes_of.items():
            for node in nodes.keys() - living:
                self._remove(user, node, nodes[node])
        return {user for user, nodes in nodes_of.items() if not living.isdisjoint(nodes)}

    async def forget(self, incarnation: str) -> None:
        self._lives.pop(incarnation, None)
        self._stamps.pop(incarnation, None)
        await self._pipeline.run([(b"DEL", self._node(incarnation))])

    async def _living(self, nodes: set[bytes]) -> set[bytes]:
        if not nodes:
            return set()
        asked = sorted(nodes)
        commands: list[Command] = [(b"EXISTS", self._node(node.decode())) for node in asked]
        answers = await self._pipeline.run(commands)
        return {node for node, lives in zip(asked, answers, strict=True) if lives}

    def _remove(self, user: int, node: bytes, stamp: bytes) -> None:
        # Refused or lost, it is left for the next who looks.
        self._pipeline.post((b"EVAL", _REMOVE_DEAD, b"1", self._user(user), node, stamp), 0)

    def _user(self, user: int) -> bytes:
        return f"{self._prefix}:u:{user}".encode()

    def _node(self, incarnation: str) -> bytes:
        return f"{self._prefix}:n:{incarnation}".encode()


def _stamp() -> bytes:
    return secrets.token_hex(4).encode()


def _slices(users: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(users), size):
        yield users[start : start + size]
