"""An eye at every writer of a log: what it acknowledges is stored, and the log is still its own.

Looks at the true state of the world at the very moment at which a turn is acknowledged, where
clients find out late or never; of every turn, whatever its commands were. It changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from actors.conversation import Conversation
from broker.wire.errors import Refusal
from storage.records import Mark

if TYPE_CHECKING:
    from tests.simulation.world import World


class Witness:
    """Watches while it is entered."""

    def __init__(self) -> None:
        self.world: World | None = None

    def __enter__(self) -> None:
        self._apply = Conversation.apply
        witness = self

        def apply(conv: Conversation) -> None:
            witness.see(conv)
            self._apply(conv)

        Conversation.apply = apply  # type: ignore[method-assign,assignment]

    def __exit__(self, *_: object) -> None:
        Conversation.apply = self._apply  # type: ignore[method-assign]

    def see(self, conv: Conversation) -> None:
        """A writer is about to acknowledge its turn."""
        world = self.world
        if world is None or conv.abandoned or not conv.loaded or not acknowledges(conv):
            return
        if not any(node.up and node.node is conv.node for node in world.nodes):
            return  # the last step of a dead node, which nobody hears
        where = f"{conv.node.name}: {conv.name}"
        fenced = list(others_writing(world, conv))
        for why in fenced:
            world.record.wrong(f"{where}: {conv.next_seq - 1} was acknowledged {why}")
        # What the next owner has changed by then is its own business.
        missing = missing_entries(world, conv) if fenced else missing_parts(world, conv)
        for what in missing:
            world.record.wrong(f"{where}: {what} was acknowledged before it was stored")


def acknowledges(conv: Conversation) -> bool:
    """Whether somebody is told that something is done. A refusal promises nothing, nor does a
    question to the store that only begins now."""
    return any(
        type(answer) is not Refusal
        and not (type(answer) is partial and answer.func == conv._start_query)
        for _, _, answer in conv._answers
    )


def others_writing(world: World, conv: Conversation) -> Iterator[str]:
    """Why this is not the node's to write any more: by what it knows, and by the truth."""
    cluster = conv.node.cluster
    if cluster is None:
        return
    placement = cluster.placement
    over_s = conv.node.now() - placement._good_until
    if over_s >= 0:
        yield f"{over_s:.3f} s after its lease was over by its own clock"
    if not world.leases._beat_of(placement.me.incarnation):
        yield "by a node that was removed"
    claimed = world.leases._slots[conv.slot].epoch
    if claimed > conv.epoch:
        yield f"under epoch {conv.epoch}, and epoch {claimed} was claimed"
    begun = world.store.epoch_of(conv.name)
    if begun > conv.epoch:
        yield f"under epoch {conv.epoch}, and epoch {begun} has begun"


def missing_entries(world: World, conv: Conversation) -> Iterator[str]:
    """What the log lacks of the turn."""
    last = conv.next_seq - 1
    if last > len(world.store.history.get(conv.name, ())):
        yield f"{last}"


def missing_parts(world: World, conv: Conversation) -> Iterator[str]:
    """What the store lacks of the turn: entries, their new states, members, marks."""
    yield from missing_entries(world, conv)
    stored, staged = world.store.stored(conv.name), conv._staged
    for seq, payload in (conv._revised or {}).items():
        if stored.payloads[seq - 1 : seq] != [payload]:
            yield f"the new state of {seq}"
    if staged is None:
        return
    for user in (*(member.user for member in staged.members), *(user for _, user in staged.gone)):
        if stored.members.get(user) != conv.members.get(user):
            yield f"the coming or going of {user}"
    for mark in staged.marks:
        there = stored.marks.get(mark.user, Mark(conv.name, mark.user))
        if (there.read, there.delivered) < (mark.read, mark.delivered):
            yield f"the mark of {mark.user}"
