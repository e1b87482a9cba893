"""The way to the server: one that is fixed, or the master that Sentinels name now.

Blocking, for one thread. A route lives until its first failure; then it is found anew, so nothing
here tries twice. The way through a cluster: `storage.redis.cluster`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import hiredis

from storage.errors import Unavailable
from storage.redis.cluster import ClusterRoute, subscribe_in_cluster
from storage.redis.link import Answer, Command, Link
from storage.redis.settings import Address, RedisSettings

_NOT_A_MASTER = ("READONLY", "LOADING", "MASTERDOWN")


class Route(Protocol):
    """What takes commands to where they belong."""

    @property
    def interruptions(self) -> int:
        """How often a connection was lost and found again without the route having failed."""

    def exchange(self, commands: Sequence[Command]) -> list[Answer]:
        """Their answers, in order; an `Unavailable` in the place of one that is missing.

        Raises `Unavailable` once the whole route is of no more use.
        """

    def close(self) -> None:
        """Close its connections."""


class SingleRoute:
    """All commands go to one server."""

    interruptions = 0

    def __init__(self, settings: RedisSettings) -> None:
        self._link = master(settings)

    def exchange(self, commands: Sequence[Command]) -> list[Answer]:
        answers = self._link.exchange(commands)
        for answer in answers:
            if isinstance(answer, hiredis.ReplyError) and str(answer).startswith(_NOT_A_MASTER):
                self._link.close()
                raise Unavailable(f"Redis: {answer}", applied=None)
        return answers

    def close(self) -> None:
        self._link.close()


def find(settings: RedisSettings) -> Route:
    """Connect to wherever commands go now. Raises `Unavailable`."""
    return ClusterRoute(settings) if settings.kind == "cluster" else SingleRoute(settings)


def subscribe(settings: RedisSettings, channels: Sequence[bytes]) -> Link:
    """A connection that has subscribed to these channels, of one slot. Raises `Unavailable`."""
    if settings.kind == "cluster":
        return subscribe_in_cluster(settings, channels)
    link = master(settings)
    try:
        link.send([(b"SUBSCRIBE", *channels)])
        for answer in link.answers(len(channels)):
            if isinstance(answer, hiredis.ReplyError):
                raise Unavailable(f"Redis at {link.address[0]}:{link.address[1]}: {answer}")
    except BaseException:
        link.close()
        raise
    return link


def master(settings: RedisSettings) -> Link:
    """A connection to the one server that takes writes. Raises `Unavailable`."""
    if settings.kind == "single":
        return Link(settings, settings.addresses[0])
    link = Link(settings, _ask_sentinels(settings))
    try:
        role = link.exchange([("ROLE",)])[0]
        if not isinstance(role, list) or role[0] != b"master":
            # What a Sentinel says may be older than a failover.
            raise Unavailable(f"Redis at {link.address[0]}:{link.address[1]} is no master: {role}")
    except BaseException:
        link.close()
        raise
    return link


def _ask_sentinels(settings: RedisSettings) -> Address:
    reasons: list[str] = []
    for address in settings.addresses:
        try:
            sentinel = Link(settings, address, sentinel=True)
            try:
                question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", settings.service)
                (answer,) = sentinel.exchange([question])
            finally:
                sentinel.close()
        except Unavailable as error:
            reasons.append(str(error))
            continue
        if isinstance(answer, list):
            return answer[0].decode(), int(answer[1])
        reasons.append(f"{address[0]}:{address[1]} knows no service {settings.service!r}")
    raise Unavailable(f"no Sentinel names a master: {'; '.join(reasons)}")
