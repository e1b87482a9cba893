"""The way of a client's commands to a conversation that another node owns.

One route for each slot that is not this node's. Commands go to the owner in their order and wait
for its answers; while nobody owns the slot they wait here. What an owner did not look at is sent to
the next one. Where it cannot be known whether a command was done, one that may be done twice
without harm (it has a key, or changes nothing) is sent again; of any other the client is told so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from actors.cluster.words import Answer, Ask
from broker.wire import commands as c
from broker.wire.codec import MSGPACK
from broker.wire.errors import Code, Refusal

if TYPE_CHECKING:
    from actors.cluster.cluster import Cluster
    from actors.cluster.peer import Peer
    from actors.connection import Connection
    from actors.conversation import Conversation

ROUTE_MAX_COMMANDS = 65_536
"""Commands that wait on one route; further ones are refused with `unavailable`."""
COMMAND_TIMEOUT_S = 15.0
"""After this, a client is told that the outcome is unknown."""

REPEATABLE = frozenset(
    {
        c.Send,
        c.Edit,
        c.Recall,
        c.Pin,
        c.Unpin,
        c.React,
        c.History,
        c.Message,
        c.Read,
        c.Delivered,
        c.Typing,
        c.GroupGet,
        c.GroupMembers,
        c.ConversationSet,
    }
)
"""Commands that have a key, or change nothing when they are done again."""

NOT_REACHED = Refusal(
    Code.UNAVAILABLE, "the node of this conversation cannot be reached: try again"
)
IN_DOUBT = Refusal(
    Code.UNAVAILABLE,
    "the node of this conversation cannot be reached; the outcome is unknown: try again",
)


class Pending(Struct, gc=False):
    """A command under way: `peer` has it, or nobody yet.

    `refused`: it is to be answered so, but not before what the same client asked earlier.
    """

    connection: Connection
    command: Any
    name: str
    deadline: float
    peer: Peer | None = None
    attempt: int = 0
    refused: Refusal | None = None


class Remote:
    """A conversation elsewhere, to those who post commands to it."""

    __slots__ = ("name", "route")

    def __init__(self, name: str, route: Route) -> None:
        self.name = name
        self.route = route

    @property
    def ended(self) -> bool:
        """Whether to look for the conversation anew: it may be this node's by now."""
        return self.route.ended

    def post(self, connection: Connection, command: Any, rule: object) -> bool:
        """As of `Conversation`; the rule is for the owner to know."""
        self.route.post(connection, command, self.name)
        return True


class Route:
    def __init__(self, cluster: Cluster, slot: int) -> None:
        self._cluster = cluster
        self.slot = slot
        self.ended = False
        self.pending: dict[int, Pending] = {}
        """By their tags, in the order of the commands."""
        self._peer: Peer | None = None
        self._attempt = next(cluster.numbers)
        self._left_over = 0
        """How many commands somebody still has of earlier attempts; nothing may overtake them."""
        self._refused = 0
        """How many of them are refused and wait for their place."""
        self._straight = True
        """Whether all that is pending is with `_peer`, in this attempt: a new one may follow."""

    def post(self, connection: Connection, command: Any, name: str) -> None:
        """Send a command to the owner, when there is one."""
        if len(self.pending) >= ROUTE_MAX_COMMANDS:
            connection.refuse(command.id, NOT_REACHED)
            return
        cluster = self._cluster
        tag = cluster.next_tag(self)
        pending = Pending(connection, command, name, cluster.node.now() + COMMAND_TIMEOUT_S)
        self.pending[tag] = pending
        if self._straight and self._peer is not None:
            self._send(tag, pending)
        else:
            self._straight = False

    def take_back(self, name: str) -> list[tuple[Connection, Any]]:
        """Commands for a conversation that nobody has yet, in order; they are posted again."""
        waiting = {
            tag: each
            for tag, each in self.pending.items()
            if each.name == name and each.peer is None and each.refused is None
        }
        for tag in waiting:
            del self.pending[tag]
            self._cluster.take_tag(tag)
        return [(each.connection, each.command) for each in waiting.values()]

    def _send(self, tag: int, pending: Pending) -> None:
        peer = self._peer
        assert peer is not None
        pending.peer = peer
        pending.attempt = self._attempt
        connection, command = pending.connection, pending.command
        peer.say(
            Ask(
                tag,
                self.slot,
                connection.number,
                connection.user,
                connection.wire.index,
                MSGPACK.encode(command),
                self._attempt,
            )
        )

    # What comes back

    def answered(self, word: Answer) -> None:
        """The owner's answer."""
        pending = self.pending.pop(word.tag, None)
        if pending is not None:
            pending.connection.answer_encoded(word.reply)
            if word.conv:
                pending.connection.reached(word.conv, word.seq, word.head)
            if self._refused:
                self._answer_refused()
            self._resolved(pending)

    def moved(self, tag: int) -> None:
        """The peer that has the command is not the owner, and did nothing."""
        pending = self.pending.get(tag)
        if pending is not None and pending.peer is not None:
            if pending.attempt == self._attempt:
                self._peer = None
                self._begin_anew()
                self._cluster.placement.look_soon()
            self._resolved(pending)

    def _begin_anew(self) -> None:
        """What others have is waited for, and then the rest is sent, in order."""
        self._straight = False
        self._attempt = next(self._cluster.numbers)
        self._left_over = sum(pending.peer is not None for pending in self.pending.values())

    def _resolved(self, pending: Pending) -> None:
        """The peer that had the command has it no more."""
        had, pending.peer = pending.peer, None
        if had is not None and pending.attempt != self._attempt:
            self._left_over -= 1
            if not self._left_over:
                self._pump()

    def in_doubt(self, peer: Peer) -> None:
        """What this peer was asked may have been done, or lost, and so may its answers."""
        if peer.gone and self._peer is peer:
            self._peer = None  # else it would be asked again, and nobody be in doubt of it any more
        if not any(pending.peer is peer for pending in self.pending.values()):
            return
        renewed: dict[int, Pending] = {}
        for tag, pending in self.pending.items():
            if pending.peer is peer:
                # An answer that is still on its way would overtake those that are asked again.
                self._cluster.take_tag(tag)
                tag = self._cluster.next_tag(self)
                pending.peer = None
                if type(pending.command) not in REPEATABLE:
                    pending.refused = IN_DOUBT
                    self._refused += 1
            renewed[tag] = pending
        self.pending = renewed
        self._begin_anew()
        self._answer_refused()
        self._pump()

    def expire(self, now: float) -> None:
        """Answer those who have waited for too long."""
        for tag, pending in list(self.pending.items()):
            if pending.deadline > now:
                break
            self._give_up(tag, NOT_REACHED if pending.peer is None else IN_DOUBT)
        self._answer_refused()

    def _answer_refused(self) -> None:
        """Answer those whose refusal has come to its place among the client's answers."""
        waiting: set[Connection] = set()
        for tag, pending in list(self.pending.items()) if self._refused else ():
            if pending.refused is None:
                waiting.add(pending.connection)
            elif pending.connection not in waiting:
                self._give_up(tag, pending.refused)

    def _give_up(self, tag: int, refusal: Refusal) -> None:
        pending = self.pending.pop(tag)
        if pending.refused is not None:
            self._refused -= 1
        self._cluster.take_tag(tag)
        pending.connection.refuse(pending.command.id, refusal)
        self._cluster.node.flusher.kick()
        self._resolved(pending)

    # Where it leads

    def settle(self) -> None:
        """Go by what placement knows now."""
        placement = self._cluster.placement
        if placement.epoch_of(self.slot):
            self._come_home()
            return
        inbox = placement.owner_inbox(self.slot)
        known = inbox is not None and inbox != self._cluster.inbox
        peer = self._cluster.peer(inbox) if inbox is not None and known else None
        if peer is not self._peer:
            self._peer = peer
            self._begin_anew()
        self._pump()

    def unresolved(self) -> bool:
        """Whether some peer still has commands of this route."""
        return any(pending.peer is not None for pending in self.pending.values())

    def _come_home(self) -> None:
        """The slot is this node's: what waits is done here."""
        self.ended = True
        pending, self.pending = self.pending, {}
        self._refused = 0
        self._cluster.drop_route(self)
        registry = self._cluster.node.registry
        for tag, each in pending.items():
            self._cluster.take_tag(tag)
            done = each.peer is not None and type(each.command) not in REPEATABLE
            if done or each.refused is not None:
                # In its place among those that are done here now.
                each.connection.post(registry.conversation(each.name), each.command, _in_doubt)
            else:
                each.connection.dispatch_again(each.command)

    def _pump(self) -> None:
        """Send what nobody has; nothing overtakes what another still has to answer."""
        if self._peer is None or self._left_over:
            self._straight = False
        elif not self._straight:
            self._straight = True
            for tag, pending in self.pending.items():
                if pending.peer is None and pending.refused is None:
                    self._send(tag, pending)


def _in_doubt(conv: Conversation, connection: Connection, command: Any) -> None:
    """The rule for a command that an earlier owner may have done."""
    raise IN_DOUBT
