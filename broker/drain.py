"""Stopping in order: answer what is under way, say goodbye with a slot each, store what is left.

The order of the nurseries is the app's; here is what is done between their ends. Every wait here is
bounded by the scope that the caller sets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from actors.node import Node
from broker.wire.errors import ByeCode
from storage.errors import Unavailable

log = logging.getLogger("parley.drain")

LOOK_AGAIN_S = 0.01
ANSWERING_SHARE = 2
"""Up to a half of the drain time is for what is under way; the rest, for goodbyes."""
FINISH_S = 5.0
GOODBYES_BEFORE_YIELD = 256


async def say_goodbye(node: Node, drain_ms: int) -> None:
    """Read no more, answer what was read, and send everybody away, each to a slot of its own.

    The slots spread the clients' return over the drain time, so that it is no stampede.
    """
    node.draining = True
    for connection in list(node.connections):
        connection.pause()
    with trio.move_on_after(drain_ms / 1000 / ANSWERING_SHARE):
        await _until(lambda: not any(connection.in_flight for connection in node.connections))
    leaving = list(node.connections)
    log.info("draining %d connections", len(leaving))
    for index, connection in enumerate(leaving):
        connection.bye(ByeCode.DRAINING, after_ms=index * drain_ms // len(leaving))
        if index % GOODBYES_BEFORE_YIELD == GOODBYES_BEFORE_YIELD - 1:
            await node.flusher.flush()
            await trio.lowlevel.checkpoint()
    await node.flusher.flush()


async def hand_over(node: Node, drain_ms: int) -> None:
    """In a cluster: give this node's conversations to others, before its own clients must go.

    They are served on meanwhile, through the new owners.
    """
    if node.cluster is not None:
        with trio.move_on_after(drain_ms / 1000) as scope:
            await node.cluster.placement.leave()
        if scope.cancelled_caught:
            log.error("not all conversations could be handed over; others will claim them")


async def finish(node: Node) -> None:
    """Let the turn become idle, store when the last ones were seen, and leave the cluster."""
    with trio.move_on_after(FINISH_S) as scope:
        await _until(node.turn.idle)
        try:
            await node.presence.store_seen()
        except Unavailable as error:
            log.error("when users were last seen could not be stored: %s", error)
        if node.cluster is not None:
            await node.cluster.leave()
    if scope.cancelled_caught:
        log.error("the last turn did not end in time; nothing unfinished was acknowledged")


async def _until(done: Callable[[], bool]) -> None:
    # Asked for only once in a life; an event would have to be thought of with every answer.
    while not done():  # noqa: ASYNC110
        await trio.sleep(LOOK_AGAIN_S)
