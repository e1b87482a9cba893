"""A conversation of another node, as the clients here see it: who gets it live, and up to where.

The owner says who of the users here are members, and sends each batch once; the fan-out is done
here. `head` is what the clients here were told. Where the next batch does not follow it, what lacks
is read from the store, while later batches wait; where that is too much, clients are told that they
are behind, and pull. Decides nothing else, and never writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.faults import log_outage
from actors.images import Drafts
from actors.subscribers import Subscribers
from storage.errors import Unavailable

if TYPE_CHECKING:
    from actors.cluster.cluster import Cluster
    from actors.cluster.peer import Peer
    from actors.connection import Connection
    from actors.outbox import Live, Outbox

GAP_MAX_ENTRIES = 1_000
"""More than this is not read for the clients: they are behind."""
GAP_PENDING_MAX_BYTES = 4 * 1024 * 1024
"""Batches that wait for a gap to be read; beyond, clients are behind."""


class Follower:
    __slots__ = (
        "_cluster",
        "_early",
        "_ended",
        "_last",
        "_pending",
        "_pending_bytes",
        "_reading",
        "doubt",
        "epoch",
        "head",
        "members",
        "name",
        "owner",
        "subscribers",
        "used_at",
    )

    def __init__(self, cluster: Cluster, name: str, head: int) -> None:
        self._cluster = cluster
        self.name = name
        self.head = head
        self.owner: Peer | None = None
        """None: it was this node's, or its owner is gone, and nobody else has spoken yet."""
        self.doubt = False
        """Whether the owner may have said something that was lost, and has not spoken again."""
        self.epoch = 0
        self.members: dict[int, int] = {}
        """Users with a session here whom the owner tells; each what comes after this entry."""
        self.subscribers = Subscribers(cluster.node, self)
        self.used_at = cluster.node.now()
        self._early: dict[Connection, bool] = {}
        """Those that may be told nothing before a gap is read, as it is from before they came; and
        whether they are to pull then: they have pulled since, or were not told that they are to."""
        self._ended = False
        self._reading = False
        self._last = head
        self._pending: list[tuple[int, Drafts]] = []
        self._pending_bytes = 0

    # Who is told

    def admit(self, user: int, after: int, came: int) -> bool:
        """A member, since the entry `came`, is told what comes after `after`.

        False if they were told before: then it goes on, unless they were no member in between.
        """
        if user in self.members:
            if came - 1 > self.head:
                self.members[user] = after
                self._fall_behind_of(user)
            return False
        self.members[user] = after
        registry = self._cluster.node.registry
        registry.interested(user, self)
        for connection in registry.connections_of(user):
            if came > after:
                connection.no_longer_behind(self.name)  # that was another membership
            if self.name in (connection.behind or ()) and not connection.closing:
                # It may have pulled since, when it was told nothing, or was no member.
                connection.fall_behind(self)
            else:
                self.subscribe(connection)
        return True

    def _fall_behind_of(self, user: int) -> None:
        for connection in self._cluster.node.registry.connections_of(user):
            if not connection.closing:
                connection.fall_behind(self)

    def find_gone(self, user: int) -> None:
        """One who was told is no member any more, and how that came they were not told: the answer
        to their pull says it."""
        self._fall_behind_of(user)
        self.expel(user)

    def expel(self, user: int) -> None:
        """A member is told no more."""
        if self.members.pop(user, None) is not None:
            registry = self._cluster.node.registry
            registry.lost_interest(user, self)
            for connection in registry.connections_of(user):
                self.unsubscribe(connection)
                connection.no_longer_behind(self.name)

    def subscribe(self, connection: Connection) -> None:
        """Live entries from the next one on, unless it is one from before they came."""
        if self.head >= self.members.get(connection.user, 0):
            self.subscribers.add(connection)
        elif connection in self._early:
            self._early[connection] = True
            connection.stay_behind(self.name)
        elif connection.session is None:
            self._early[connection] = True
            connection.stay_behind(self.name)  # it is being opened: nothing before its welcome
        elif not connection.closing:
            self._early[connection] = False
            connection.fall_behind(self)

    def unsubscribe(self, outbox: Outbox) -> None:
        self.subscribers.discard(outbox)

    def reach(self, peer: Peer, user: int) -> None:
        """A member has come to another node: that is the owner's business."""

    def hand_on(self, source: Live) -> None:
        """This node has the conversation now, which tells those here."""
        self._recall_early(source)
        self.end()

    def end(self) -> None:
        """Nobody here is told any more."""
        registry = self._cluster.node.registry
        for user in self.members:
            registry.lost_interest(user, self)
        self.members.clear()
        self._early.clear()
        self._pending.clear()
        self._ended = True

    @property
    def told(self) -> int:
        """As that of who writes it: up to where those here are told."""
        return self.head

    @property
    def lags(self) -> bool:
        """Whether entries that are known to be there were not told here yet."""
        return self._reading

    # What is told

    def batch(self, first: int, drafts: Drafts) -> None:
        """New entries, from `first` on."""
        self.used_at = self._cluster.node.now()
        last = self._last_of(first, drafts)
        if last <= self.head:
            return
        if self._reading or first > self.head + 1:
            self._wait(first, drafts)
            return
        if first <= self.head:
            drafts = drafts.part(self.head + 1 - first, len(drafts.payloads))
        self.head = last
        # What others wrote in this pass must not be overtaken by what senders are written directly.
        self._cluster.node.flusher.settle()
        self.subscribers.fan_out(drafts)

    def lack(self, head: int) -> None:
        """The owner has entries up to `head`: read what was not told here."""
        if head > max(self.head, self._last):
            self._last = head
            self._read_gap()

    def fall_behind(self, head: int) -> None:
        """Everybody here has to pull."""
        self.head = max(self.head, head)
        self._pending.clear()
        self._pending_bytes = 0
        self._cluster.node.flusher.settle()
        self.subscribers.fall_behind()
        self._recall_early(self)

    def _recall_early(self, source: Live) -> None:
        """A pull makes those live that could not be before: of what tells them from now on."""
        early, self._early = self._early, {}
        for connection, to_pull in early.items():
            if to_pull and not connection.closing and self.name in (connection.behind or ()):
                connection.fall_behind(source)
                if connection.user not in source.members:
                    connection.no_longer_behind(self.name)  # which the answer to their pull says

    def _wait(self, first: int, drafts: Drafts) -> None:
        # What follows on what waits is not read: else a busy conversation would be chased for ever.
        if first > (self._last_of(*self._pending[-1]) if self._pending else self.head) + 1:
            self._last = max(self._last, first - 1)
        self._pending.append((first, drafts))
        self._pending_bytes += sum(map(len, drafts.payloads))
        if self._pending_bytes > GAP_PENDING_MAX_BYTES:
            self.fall_behind(self._last_of(first, drafts))
        else:
            self._read_gap()

    def _read_gap(self) -> None:
        if self._last - self.head > GAP_MAX_ENTRIES:
            self.fall_behind(self._last)
        elif not self._reading:
            self._reading = True
            self._cluster.node.tasks.start_soon(self._fill)

    async def _fill(self) -> None:
        """Read from the store up to what is known to be there; then go on with what waited."""
        cluster = self._cluster
        try:
            while self._last > self.head and not self._ended:
                after, limit = self.head, self._last - self.head
                async with cluster.node.queries:
                    payloads = await cluster.node.store.read(self.name, after=after, limit=limit)
                async with cluster.delivery:
                    self._told(after, payloads, limit)
                    await cluster.node.flusher.flush_turn()
        except Unavailable as error:
            log_outage(error)
            self.fall_behind(max([self._last, *[self._last_of(*each) for each in self._pending]]))
        async with cluster.delivery:
            # Not sooner: what waited is lacking as well until this pass has told it.
            self._reading = False
            self._recall_early(self)
            pending, self._pending = self._pending, []
            self._pending_bytes = 0
            for first, drafts in pending:
                self.batch(first, drafts)
            if self._last > self.head and not self._ended:
                self._read_gap()
            await cluster.node.flusher.flush_turn()

    @staticmethod
    def _last_of(first: int, drafts: Drafts) -> int:
        return first + len(drafts.payloads) - 1

    def _told(self, after: int, payloads: list[bytes], wanted: int) -> None:
        if self.head != after or self._ended:
            return  # it fell behind meanwhile, or somebody else tells it
        if len(payloads) < wanted:
            self.fall_behind(self._last)
            return
        self.head = after + len(payloads)
        self.subscribers.tell_stored(payloads)
