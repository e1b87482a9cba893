"""Which node writes which conversation: leases, slots, and their hand-over.

A node lives while it beats. It believes in its own lease by its own monotonic clock only: from when
the last beat that succeeded was first said, for the time of a lease less a margin; after that it
acknowledges nothing (it is *fenced*). Others remove a node whose beat stood still for a whole lease
by their clocks. Both are conditional on the same value, so a node that was removed cannot beat
again; it begins a new incarnation, which owns nothing. Slots change hands by one conditional write
each, with a higher epoch; nothing of this happens per message.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING

import trio
from msgspec import Struct
from msgspec.structs import replace

from actors.faults import log_outage
from actors.parking import Parking
from storage.errors import Unavailable
from storage.names import SLOTS
from storage.records import NodeRecord, SlotRecord

if TYPE_CHECKING:
    from actors.cluster.cluster import Cluster

log = logging.getLogger("parley.cluster")

BEATS_PER_LEASE = 5
MARGIN_SHARE = 5
"""A node stops believing in its lease a fifth before its end: clocks may differ in rate."""
LOOKS_PER_LEASE = 5
RETRY_S = 0.1
"""After a store that failed; also between two looks that were asked for."""
RESOLVE_TIMEOUT_S = 1.0
"""For a former owner to answer what it was asked, before the new one overtakes it."""
HAND_OVER_AT_ONCE = 64
"""Slots that change hands in one go; their conversations pause for that long."""


class Seen(Struct):
    """A node as it was last seen: since when (own clock) its beat stands."""

    record: NodeRecord
    since: float


class Placement:
    """`owned` maps the slots that this node writes now to their epochs."""

    def __init__(self, cluster: Cluster, *, lease_ms: int) -> None:
        self._cluster = cluster
        self._node = cluster.node
        self._leases = cluster.leases
        self.lease_s = lease_ms / 1000
        self.owned: dict[int, int] = {}
        self.table: list[SlotRecord] = [SlotRecord(slot) for slot in range(SLOTS)]
        self.seen: dict[str, Seen] = {}
        """By incarnation; those that live, this node included."""
        self.me = cluster.record
        self._joined = trio.Event()
        """A look was done with the lease held: what is free and wants this node, it has."""
        self.draining = False
        self._good_until = float("-inf")
        self._beaten = False
        self._beating = trio.Lock()
        self._removed = False
        self._said = (0, 0.0)
        """The beat that was said last, and when it was first said."""
        self._releasing: set[int] = set()
        self._uncertain: set[int] = set()
        """Given away by a claim of which nobody knows whether it took place."""
        self._look = Parking()
        self._changing = trio.Lock()
        self._scores: dict[str, list[bytes]] = {}

    # What everybody asks

    def good(self) -> bool:
        """Whether this node may still acknowledge what it has written."""
        return self._node.now() < self._good_until

    def epoch_of(self, slot: int) -> int:
        """The epoch under which this node takes new commands for a slot; 0: it does not."""
        return 0 if slot in self._releasing else self.owned.get(slot, 0)

    def owner_inbox(self, slot: int) -> str | None:
        """Where the owner of a slot hears, if there is one that lives."""
        seen = self.seen.get(self.table[slot].owner)
        return seen.record.inbox if seen is not None else None

    def inboxes(self) -> set[str]:
        """Of all nodes that live, but this one."""
        return {seen.record.inbox for seen in self.seen.values()} - {self._cluster.inbox}

    def listens(self, http: str, tcp: str) -> None:
        """What the record says of where clients are served; told with the next beat."""
        self.me = replace(self.me, http=http, tcp=tcp)

    def look_soon(self) -> None:
        """Something has changed, or seems to have."""
        self._look.unpark()

    async def wait_joined(self) -> None:
        """Wait until this node knows the others, and a while for slots that others hand over."""
        await self._joined.wait()
        # A lease, and as long again, in which the slots of one that is dead are claimed.
        with trio.move_on_after(2 * self.lease_s):
            while not self.owned:  # noqa: ASYNC110 - once in the life of a node
                await trio.sleep(RETRY_S)

    # Beating

    async def run_beat(self) -> None:
        """Hold the lease; where it is lost, begin anew."""
        while True:
            try:
                await self.beat()
            except Unavailable as error:
                log_outage(error)
                pause = RETRY_S
            else:
                pause = self.lease_s / BEATS_PER_LEASE
                if self._good_until - self._node.now() < 2 * pause:
                    pause = RETRY_S  # it was first said long ago
            await trio.sleep(pause)

    async def beat(self) -> None:
        """Renew the lease. Raises `Unavailable`."""
        async with self._beating:
            await self._beat()

    async def _beat(self) -> None:
        if self._removed:
            return
        beaten, me = self._beaten, self.me
        record = replace(
            me,
            beat=me.beat + 1 if beaten else 1,
            draining=self.draining,
            connections=len(self._node.connections),
            conversations=len(self._node.registry.conversations),
            lag_ms=self._cluster.lag_ms(),
        )
        if self._said[0] != record.beat:
            self._said = record.beat, self._node.now()
        with trio.move_on_after(self.lease_s) as scope:
            done = await self._leases.beat(record)
        if self.me.incarnation != me.incarnation:
            return  # lost meanwhile
        if scope.cancelled_caught:
            raise Unavailable("the lease was not renewed in time", applied=None)
        if not done:
            self.lost("others have held this node for dead")
            return
        self.me = replace(self.me, beat=record.beat)
        self._beaten = True
        # Said again, it may have stood still, for all others, since it was said first.
        self._good_until = self._said[1] + self.lease_s * (1 - 1 / MARGIN_SHARE)
        if not self._joined.is_set():
            self.look_soon()

    def lost(self, why: str) -> None:
        """The lease is over: nothing that is under way may be acknowledged."""
        log.error("%s has lost its lease: %s", self.me.incarnation, why)
        self._good_until = float("-inf")
        self._beaten = False
        self._said = (0, 0.0)
        self.owned.clear()
        self._releasing.clear()
        self._uncertain.clear()
        self.seen.pop(self.me.incarnation, None)
        self.me = replace(self.me, incarnation=new_incarnation(self.me.node), beat=1)
        self._cluster.abandon_all()
        self.look_soon()

    # Looking

    async def run(self) -> None:
        """Look at nodes and slots now and then, and when there is reason to; act on it."""
        while True:
            try:
                await self.look()
            except Unavailable as error:
                log_outage(error)
            await trio.sleep(RETRY_S)
            with trio.move_on_after(self.lease_s / LOOKS_PER_LEASE):
                await self._look.park()

    async def look(self) -> None:
        """One look, and what follows from it. Raises `Unavailable`."""
        async with self._changing:
            # Slots first: whoever owns one had a record before, so that one who has none is dead.
            table = await self._leases.slots()
            await self._look_at_nodes()
            self.learn(table)
            if self.good():
                await self._claim(table)
                await self._give_back()
                self._joined.set()

    async def _look_at_nodes(self) -> None:
        records = await self._leases.nodes()
        now = self._node.now()
        present = {}
        for record in records:
            before = self.seen.get(record.incarnation)
            still = before is not None and before.record.beat == record.beat
            present[record.incarnation] = Seen(record, before.since if still and before else now)
        for incarnation, seen in list(present.items()):
            dead = not self.beats(seen, now) and incarnation != self.me.incarnation
            if dead and await self._leases.remove(incarnation, seen.record.beat):
                log.warning("%s is dead: its beat stood still for a lease", incarnation)
                del present[incarnation]
        self.seen = present
        for name in self._scores.keys() - {seen.record.node for seen in present.values()}:
            del self._scores[name]
        self._cluster.set_peers(self.inboxes())

    def beats(self, seen: Seen, now: float) -> bool:
        """Whether its beat has moved within a lease: of the two, the longer one."""
        return now - seen.since < max(self.lease_s, seen.record.lease_ms / 1000)

    def learn(self, records: Iterable[SlotRecord]) -> None:
        """Take in what is known of slots; older knowledge than ours is passed over."""
        for record in records:
            if record.epoch > self.table[record.slot].epoch:
                self.table[record.slot] = record
                mine = self.owned.get(record.slot, 0)
                if mine and record.epoch > mine and record.slot not in self._releasing:
                    self.lost(f"slot {record.slot} was claimed by {record.owner or 'nobody'}")
                    return
        self._cluster.reroute()

    # Taking over

    async def _claim(self, table: list[SlotRecord]) -> None:
        """Claim slots without a living owner that prefer this node; take up what it owns.

        `table` was read before the nodes were: of what was heard since, the owner may be alive and
        yet unknown here.
        """
        me = self.me.incarnation
        wanted = [
            SlotRecord(record.slot, me, record.epoch + 1)
            for record in table
            if (record.owner not in self.seen and self.preferred(record.slot) == me)
            or (record.owner == me and record.slot in self._uncertain)
        ]
        if wanted:
            found = await self._leases.claim(wanted)
            self._uncertain -= {record.slot for record in found if record in wanted}
            self.learn(found)
        mine = [
            record
            for record in self.table
            if record.owner == self.me.incarnation
            and record.slot not in self.owned
            and record.slot not in self._uncertain
        ]
        if mine:
            await self._take_up(mine)
        if wanted:
            self._cluster.tell_slots(mine)

    async def _take_up(self, records: list[SlotRecord]) -> None:
        """Own slots: what their last owner left open may not have been told to everybody."""
        incarnation = self.me.incarnation
        slots = {record.slot for record in records}
        left = await self._node.store.left_open(slots)
        with trio.move_on_after(RESOLVE_TIMEOUT_S):
            await self._cluster.resolved(slots)
        if self.me.incarnation != incarnation:
            return
        for record in records:
            self.owned[record.slot] = record.epoch
        self._cluster.reroute()
        self._cluster.take_up(left)
        log.info("%s owns %d slots", self.me.incarnation, len(self.owned))

    # Giving away

    async def _give_back(self) -> None:
        """Hand slots over to the nodes that they prefer, which have come (back)."""
        moving: list[SlotRecord] = []
        for slot, epoch in self.owned.items():
            preferred = self.preferred(slot)
            if preferred is not None and preferred != self.me.incarnation:
                moving.append(SlotRecord(slot, preferred, epoch + 1))
        for start in range(0, len(moving), HAND_OVER_AT_ONCE):
            await self._hand_over(moving[start : start + HAND_OVER_AT_ONCE])

    async def leave(self) -> None:
        """Give all slots to others, as far as there are any, and then the lease."""
        self.draining = True
        try:
            await self.beat()
            async with self._changing:
                await self._look_at_nodes()
                await self._give_back()
        except Unavailable as error:
            log_outage(error)
        if self.owned:
            log.info("%d slots are left to whoever claims them", len(self.owned))

    async def settle(self) -> None:
        """Take no new commands for what is still owned, and finish those that are under way.
        Raises `Unavailable`."""
        # Not beside a look, which would hand over what is not finished yet.
        async with self._changing:
            slots = set(self.owned)
            self._releasing |= slots
            await self._cluster.settle_slots(slots)

    async def remove(self) -> None:
        """The last word: this node owns nothing more and is gone."""
        self._good_until = float("-inf")
        self.owned.clear()
        self._removed = True
        try:
            async with self._beating:
                await self._leases.remove(self.me.incarnation, self.me.beat)
        except Unavailable as error:
            log_outage(error)

    async def _hand_over(self, wanted: list[SlotRecord]) -> None:
        incarnation = self.me.incarnation
        slots = {record.slot for record in wanted if record.slot in self.owned}
        self._releasing |= slots
        try:
            await self._cluster.settle_slots(slots)
            if self.me.incarnation != incarnation:
                return
            # From here on, until the claim is answered, nobody knows whose they are.
            for slot in slots:
                self.owned.pop(slot, None)
            self._uncertain |= slots
            found = await self._leases.claim([r for r in wanted if r.slot in slots])
            self._uncertain -= slots
        finally:
            self._releasing -= slots
            if kept := slots & self.owned.keys():
                self._cluster.keep(kept)
        self._cluster.gave_away(slots)
        self.learn(found)
        self._cluster.tell_slots(found)

    # Who should own what

    def preferred(self, slot: int) -> str | None:
        """The living node that a slot should belong to: rendezvous hashing by the nodes' names."""
        best: tuple[bytes, str] | None = None
        for incarnation, seen in self.seen.items():
            if seen.record.draining or (incarnation == self.me.incarnation and self.draining):
                continue
            score = (self._score(seen.record.node, slot), incarnation)
            if best is None or score > best:
                best = score
        return best[1] if best is not None else None

    def _score(self, node: str, slot: int) -> bytes:
        scores = self._scores.get(node)
        if scores is None:
            scores = [
                blake2b(f"{node}:{number}".encode(), digest_size=8).digest()
                for number in range(SLOTS)
            ]
            self._scores[node] = scores
        return scores[slot]


def new_incarnation(node: str) -> str:
    """A name that no incarnation of any node ever had."""
    return f"{node}.{secrets.token_hex(6)}"
