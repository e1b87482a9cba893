"""What makes a node one of many: its links, and what it hears and says over them.

Owned by `actors.node.Node`; None there where one process is alone. Here words become plain calls:
commands go to this node's conversations, entries to its followers, news of users to the registry.
Decides nothing about messages; who owns what is `placement`'s business.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from actors.cluster import words as w
from actors.cluster.following import Following
from actors.cluster.heads import Heads
from actors.cluster.hearing import hear
from actors.cluster.here import Here
from actors.cluster.moving import LOOK_AGAIN_S, settle_slots
from actors.cluster.peer import Peer
from actors.cluster.placement import Placement, new_incarnation
from actors.cluster.rounds import Rounds
from actors.cluster.route import Remote, Route
from actors.cluster.silence import Silence
from actors.cluster.status import status
from actors.faults import log_outage
from broker.wire.errors import ByeCode
from storage.errors import Unavailable
from storage.names import slot_of
from storage.records import NodeRecord, SlotRecord

if TYPE_CHECKING:
    from actors.connection import Connection
    from actors.conversation import Conversation
    from actors.node import Node
    from storage.shared import Bus, Leases, PresenceStore

log = logging.getLogger("parley.cluster")

TICK_S = 0.25
"""Links are looked at this often: heartbeats, lost sessions, commands that waited for too long."""
GOODBYES_BEFORE_YIELD = 256
"""Goodbyes of a node that was held for dead, before others get their turn."""
TAKE_UP_AT_ONCE = 64
"""Conversations that are taken up after their owner's death, at once."""


class Cluster:
    """`delivery` is held by whoever fans out and flushes, so that one pass ends before the next."""

    def __init__(
        self,
        node: Node,
        *,
        name: str,
        inbox: str,
        leases: Leases,
        bus: Bus,
        presence: PresenceStore,
        lease_ms: int,
    ) -> None:
        self.node = node
        self.inbox = inbox
        self.leases = leases
        self.bus = bus
        self.record = NodeRecord(
            node=name,
            incarnation=new_incarnation(name),
            inbox=inbox,
            started_ms=node.started_ms,
            lease_ms=lease_ms,
        )
        self.placement = Placement(self, lease_ms=lease_ms)
        self.here = Here(self, presence, ttl_ms=lease_ms)
        self.numbers = count(1)
        """Each is used once, for a session of a link or an attempt of a route."""
        self.peers: dict[str, Peer] = {}
        self.rounds = Rounds(self)
        self.silence = Silence(self)
        self.following = Following(self)
        self.heads = Heads(self)
        self.routes: dict[int, Route] = {}
        self.doubtful: set[str] = set()
        """Conversations of ours that were left open: what was told of them is not known."""
        self.delivery = trio.Lock()
        self.suspect: Any = None
        """Called when a session may have ended; the app hands it in."""
        self._tags: dict[int, Route] = {}
        self._last_tag = 0
        self._to_take_up: list[str] = []
        self._idle: dict[str, int] = {}

    def status(self) -> dict[str, object]:
        """What this node knows of the cluster, for those who look."""
        return status(self)

    def start(self, tasks: trio.Nursery) -> None:
        """Run everything; the nursery is the node's."""
        for task in (
            self.run,
            self.run_ticks,
            self.run_take_up,
            self.run_put_away,
            self.placement.run_beat,
            self.placement.run,
            self.here.run,
        ):
            tasks.start_soon(task)

    def listens(self, http: str, tcp: str) -> None:
        """Where clients reach this node, for those who look at the cluster."""
        self.placement.listens(http, tcp)

    async def leave(self) -> None:
        """The last thing: what is still owned is settled, and the node is gone."""
        try:
            await self.placement.settle()
        except Unavailable as error:
            log_outage(error)
        await self.placement.remove()
        self.tell_all(w.Leave())
        await self.node.flusher.flush()
        await self.here.forget()

    # Hearing

    async def run(self) -> None:
        """Take what the bus brings, a batch at a time."""
        while True:
            messages = await self.bus.receive()
            async with self.delivery:
                for data in messages:
                    self._open(data)
                await self.node.flusher.flush_turn()

    def _open(self, data: bytes) -> None:
        try:
            envelope = w.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            log.warning("an unreadable envelope of %d bytes was dropped", len(data))
            return
        if envelope.sender == self.inbox:
            return
        peer = self.peer(envelope.sender)
        heard = peer.link.hear(envelope, self.node.now())
        self.here.confirmed()
        if heard.begins:
            self._in_doubt(peer)
        for word in heard.words:
            hear(self, peer, word)

    # Links

    def peer(self, inbox: str) -> Peer:
        """The peer that hears at an inbox, known so far or not."""
        peer = self.peers.get(inbox)
        if peer is None:
            peer = self.peers[inbox] = Peer(self, inbox)
            self._begin(peer)
            self.placement.look_soon()
        return peer

    def set_peers(self, inboxes: set[str]) -> None:
        """Those nodes live; links to others end."""
        for inbox in inboxes:
            self.peer(inbox)
        for inbox in [inbox for inbox in self.peers if inbox not in inboxes]:
            peer = self.peers[inbox]
            if peer.link.in_step(self.node.now()):
                continue  # it lives, but its record is not there yet, or it has just begun anew
            del self.peers[inbox]
            peer.drop()
            self._in_doubt(peer)
            self.following.orphan(peer)
        self.here.confirmed()

    def _begin(self, peer: Peer) -> None:
        peer.begin(*self.here.all())
        self._in_doubt(peer)

    def _in_doubt(self, peer: Peer) -> None:
        for route in list(self.routes.values()):
            route.in_doubt(peer)

    async def run_ticks(self) -> None:
        """Heartbeats, new sessions of links, and an end to waiting."""
        while True:
            await trio.sleep(TICK_S)
            now = self.node.now()
            for peer in list(self.peers.values()):
                if peer.link.may_begin(now):
                    self.here.all_late()
                    self._begin(peer)
                peer.mark_dirty()
            self.rounds.look(now)
            self.silence.look(now)
            for route in list(self.routes.values()):
                route.expire(now)
                if not route.pending:
                    self.drop_route(route)
                    route.ended = True
            self.following.look_at_orphans(now)
            self.here.confirmed()
            self.node.flusher.kick()

    def lag_ms(self) -> int:
        """The age of the oldest word to any peer that is not confirmed."""
        now = self.node.now()
        lags = [peer.link.lag_s(now) for peer in self.peers.values()]
        return round(max(lags, default=0.0) * 1000)

    def commands_waiting(self) -> int:
        """Of clients here, commands that other nodes have to answer."""
        return sum(len(route.pending) for route in self.routes.values())

    def tell_slots(self, records: Iterable[SlotRecord]) -> None:
        """Let everybody know at once what they would find out soon."""
        told = [(record.slot, record.owner, record.epoch) for record in records]
        if told:
            self.tell_all(w.Slots(told))

    def tell_all(self, word: w.AnyWord) -> None:
        """A word to every peer."""
        encoded = w.encode(word)
        for peer in self.peers.values():
            peer.say_encoded(encoded)
        self.node.flusher.kick()

    # Routes

    def route(self, name: str) -> Remote | None:
        """The way to a conversation of another node; None if it is this node's own."""
        slot = slot_of(name)
        route = self.routes.get(slot)
        if route is None:
            if self.placement.epoch_of(slot):
                return None
            route = self.routes[slot] = Route(self, slot)
            route.settle()
        return Remote(name, route)

    def reroute(self) -> None:
        """Slots have changed hands."""
        for route in list(self.routes.values()):
            route.settle()

    @contextmanager
    def said_later(self, name: str) -> Iterator[None]:
        """What goes to its next owner in the block comes before what waits for that already."""
        route = self.routes.get(slot_of(name))
        later = route.take_back(name) if route is not None else []
        try:
            yield
        finally:
            for connection, command in later:
                connection.dispatch_again(command)

    def drop_route(self, route: Route) -> None:
        if self.routes.get(route.slot) is route:
            del self.routes[route.slot]

    def next_tag(self, route: Route) -> int:
        self._last_tag += 1
        self._tags[self._last_tag] = route
        return self._last_tag

    def tagged(self, tag: int) -> Route | None:
        return self._tags.get(tag)

    def take_tag(self, tag: int) -> Route | None:
        return self._tags.pop(tag, None)

    # Moving

    async def settle_slots(self, slots: Collection[int]) -> None:
        """Finish what is under way in these slots, so that another node can own them."""
        await settle_slots(self, slots)

    def put_away(self, conversation: Conversation) -> None:
        """A conversation of ours is idle: say in the store how far it is."""
        self._idle[conversation.name] = conversation.epoch

    async def run_put_away(self) -> None:
        """Put away what was left, as much as gathers meanwhile."""
        registry = self.node.registry
        while True:
            await trio.sleep(TICK_S)
            # Not what is active again already: that activation will end as well.
            active = registry.conversations.keys() | {conv.name for conv in registry.leaving}
            idle = {conv: epoch for conv, epoch in self._idle.items() if conv not in active}
            self._idle.clear()
            if idle:
                try:
                    await self.node.store.put_away(idle)
                except Unavailable as error:
                    log_outage(error)  # they stay open: who asks for their heads, asks here

    def keep(self, slots: Collection[int]) -> None:
        """They were to be another node's, and are not: go on with what was given up for that."""
        self.reroute()
        self.take_up([conv for conv in self.doubtful if slot_of(conv) in slots])

    def gave_away(self, slots: Collection[int]) -> None:
        """They are another node's. Should they come back, the log says whom to doubt."""
        self.doubtful = {conv for conv in self.doubtful if slot_of(conv) not in slots}

    async def resolved(self, slots: Collection[int]) -> None:
        """Wait until no other node has commands of clients here for these slots."""
        # Rare and short; an event would have to be thought of with every answer.
        while any(  # noqa: ASYNC110
            slot in self.routes and self.routes[slot].unresolved() for slot in slots
        ):
            await trio.sleep(LOOK_AGAIN_S)

    def abandon_all(self) -> None:
        """The lease is lost: others write what was ours."""
        self.doubtful.clear()
        self._to_take_up.clear()
        self._idle.clear()
        for conversation in list(self.node.registry.conversations.values()):
            conversation.abandon()
        for conversation in list(self.node.registry.leaving):
            conversation.abandon()
        self.reroute()
        self.node.tasks.start_soon(self._send_away, list(self.node.connections))

    async def _send_away(self, connections: list[Connection]) -> None:
        """This node was held for dead: what others wrote meanwhile and have put away by now, its
        clients were not told of. They find out when they come again, each at its own time."""
        for index, connection in enumerate(connections):
            connection.bye(ByeCode.DRAINING, after_ms=self.node.retry_slot_ms())
            if index % GOODBYES_BEFORE_YIELD == GOODBYES_BEFORE_YIELD - 1:
                await self.node.flusher.flush()
                await trio.lowlevel.checkpoint()
        self.node.flusher.kick()

    def take_up(self, convs: Iterable[str]) -> None:
        """Conversations that a former owner left open: they do not wait for their next use."""
        for conv in convs:
            self.doubtful.add(conv)
            self._to_take_up.append(conv)

    async def run_take_up(self) -> None:
        """Take up, some at a time, what `take_up` was told."""
        while True:
            registry = self.node.registry
            while self._to_take_up and self.node.turn.loads_waiting < TAKE_UP_AT_ONCE:
                conv = self._to_take_up.pop()
                if conv in self.doubtful and registry.owns(conv):
                    registry.conversation(conv)
            await trio.sleep(TICK_S if not self._to_take_up else 0.01)
