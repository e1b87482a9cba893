"""An eye at every writer of a log: what it acknowledges is stored, and the log is still its own.

Looks at the true state of the world at the very moment of an acknowledgement, where clients find
out late or never. It changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.conversation import Conversation
from broker.wire.replies import Sent

if TYPE_CHECKING:
    from tests.simulation.world import World


class Witness:
    """Watches while it is entered."""

    def __init__(self) -> None:
        self.world: World | None = None

    def __enter__(self) -> None:
        self._reply = Conversation._reply
        witness = self

        def reply(conv: Conversation, answers: list[tuple[Any, int, object]]) -> None:
            witness.see(conv, [answer for _, _, answer in answers if type(answer) is Sent])
            self._reply(conv, answers)

        Conversation._reply = reply  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        Conversation._reply = self._reply  # type: ignore[method-assign]

    def see(self, conv: Conversation, sent: list[Sent]) -> None:
        """A writer is about to acknowledge these."""
        world = self.world
        if world is None or not sent:
            return
        if not any(node.up and node.node is conv.node for node in world.nodes):
            return  # the last step of a dead node, which nobody hears
        where = f"{conv.node.name}: {conv.name}"
        last = max(reply.seq for reply in sent)
        if last > len(world.store.history.get(conv.name, ())):
            world.record.wrong(f"{where}: {last} was acknowledged before it was stored")
        successor = world.store.epoch_of(conv.name)
        if conv.epoch and successor > conv.epoch:
            world.record.wrong(
                f"{where}: {last} was acknowledged under epoch {conv.epoch}, "
                f"and epoch {successor} has begun"
            )
