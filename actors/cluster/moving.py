"""Giving slots away without losing anything: finish, make sure that all were told, put away.

New commands for these slots wait on their routes meanwhile; that they do not wait long is why only
so many slots move at once.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import trio

from actors.cluster.rounds import Marks

if TYPE_CHECKING:
    from actors.cluster.cluster import Cluster

FINISH_TIMEOUT_S = 5.0
"""For what is under way; a conversation that is not done by then is abandoned, which loses nothing:
what it has not acknowledged is asked again of the new owner."""
CONFIRM_TIMEOUT_S = 1.0
"""For peers to confirm that they have heard everything; else the new owner is left to doubt."""
LOOK_AGAIN_S = 0.002


async def settle_slots(cluster: Cluster, slots: Collection[int]) -> None:
    """Have no conversation of these slots active. Raises `Unavailable`."""
    registry = cluster.node.registry
    leaving = [conv for conv in registry.conversations.values() if conv.slot in slots]
    for conversation in leaving:
        registry.withdraw(conversation)
    try:
        with trio.move_on_after(FINISH_TIMEOUT_S):
            # A few times in the life of a node; events would cost every turn something.
            while not all(conversation.quiet() for conversation in leaving):  # noqa: ASYNC110
                await trio.sleep(LOOK_AGAIN_S)
        heard = await _all_hear(cluster) and await _all_hear(cluster)
        clean = {
            conversation.name: conversation.epoch
            for conversation in leaving
            if heard and conversation.quiet() and conversation.loaded
        }
        if clean:
            await cluster.node.store.put_away(clean)
        for conversation in leaving:
            if conversation.name in clean and conversation.quiet():
                conversation.hand_over()
    finally:
        for conversation in leaving:
            if not conversation.abandoned:
                # Should it come back to this node, what was told of it is not known.
                cluster.doubtful.add(conversation.name)
                conversation.abandon()


async def _all_hear(cluster: Cluster) -> bool:
    """Whether all that was said so far is heard by every node. Asked twice, this includes what was
    said of users who came there until they had heard the rest."""
    marks = Marks(cluster)
    with trio.move_on_after(CONFIRM_TIMEOUT_S):
        while marks.awaited:  # noqa: ASYNC110 - as above
            await trio.sleep(LOOK_AGAIN_S)
    return marks.passed
