"""Which users hide: whoever finds that nodes believe different things of one asks the store.

A word that somebody begins to hide, or ends to, may be lost, or come before the news of a session
that it is about. What is believed then differs between the nodes that have the user.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

import trio

from actors.faults import log_outage
from storage.errors import Unavailable

if TYPE_CHECKING:
    from actors.cluster.cluster import Cluster

USERS_AT_ONCE = 500
"""Asked about in one look at the store."""
RETRY_S = 1.0


class Beliefs:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._unsure: dict[int, None] = {}
        self._asking = False

    def compare(self, users: Iterable[int]) -> None:
        """Something was said of these: is it what is believed elsewhere?"""
        registry, here = self._cluster.node.registry, self._cluster.here
        for user in users:
            beliefs = set(registry.elsewhere.get(user, {}).values())
            if len(beliefs | {here.hides(user)} - {None}) > 1:
                self._unsure[user] = None
        if self._unsure and not self._asking:
            self._asking = True
            self._cluster.node.tasks.start_soon(self._ask)

    def settled(self, user: int) -> None:
        """What they want was said, and is believed of all nodes."""
        self._unsure.pop(user, None)

    async def _ask(self) -> None:
        """Until nothing is unsure; what is said meanwhile is newer than what is read."""
        node = self._cluster.node
        while some := list(islice(self._unsure, USERS_AT_ONCE)):
            try:
                accounts = await node.store.users(some)
            except Unavailable as error:
                log_outage(error)
                await trio.sleep(RETRY_S)
                continue
            for user in some:
                if user in self._unsure:
                    self._cluster.here.changed(user, user in accounts and accounts[user].hides)
        self._asking = False
