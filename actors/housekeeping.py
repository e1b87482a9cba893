"""What must be forgotten now and then: sessions that expired long ago. Nothing waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from actors.faults import log_outage
from storage.errors import Unavailable

if TYPE_CHECKING:
    from actors.node import Node

PERIOD_S = 3_600.0


async def keep_house(node: Node) -> None:
    """At the start and every hour; a store that fails is asked again the next time."""
    while True:
        try:
            await node.store.purge(now=node.now_ms())
        except Unavailable as error:
            log_outage(error)
        await trio.sleep(PERIOD_S)
