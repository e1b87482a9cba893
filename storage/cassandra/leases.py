"""`storage.shared.Leases`: nodes and slots by conditional writes, each in a partition of its own.

A conditional write whose answer is lost is never sent again; it is looked up by a read that also
settles whatever such writes have begun, and told by what is there then. Where that is what was
there before, it is still in doubt: who was asked for the write may begin it later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import trio

from storage.cassandra.bridge import Bridge
from storage.cassandra.connection import CONDITIONAL, EXACT, READ
from storage.cassandra.known import Knowledge
from storage.cassandra.statements import Statements
from storage.errors import Unavailable
from storage.names import SLOTS
from storage.records import NodeRecord, SlotRecord

CLAIMS_AT_ONCE = 32
"""Slots that are claimed at once; the others wait, as conditional writes are heavy."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(NodeRecord).decode


class CassandraLeases:
    """See `storage.shared.Leases`."""

    def __init__(self, bridge: Bridge, statements: Statements, known: Knowledge) -> None:
        self._bridge = bridge
        self._bind = statements.bind
        self._known = known

    async def beat(self, record: NodeRecord) -> bool:
        """See `Leases.beat`."""
        self._known.shared = True
        encoded = _encode(record)
        if record.beat == 1:
            write = self._bind("first_beat", record.incarnation, 1, encoded)
        else:
            beat = record.beat
            write = self._bind("next_beat", beat, encoded, record.incarnation, beat - 1)
        applied = await self._applied(write)
        if applied:
            return True
        # In doubt, or said twice: what is there decides.
        found = await self._beat_of(record.incarnation)
        if applied is None and (found or 0) == record.beat - 1:
            # It was not written, and nobody has held the node for dead: it may say so again.
            raise Unavailable("Cassandra: a beat was not written", applied=None)
        return found == record.beat

    async def nodes(self) -> list[NodeRecord]:
        """See `Leases.nodes`."""
        rows = await self._bridge.one(self._bind("nodes"), READ)
        return [_decode(record) for (record,) in rows if record is not None]

    async def remove(self, incarnation: str, beat: int) -> bool:
        """See `Leases.remove`."""
        if await self._applied(self._bind("remove_node", incarnation, beat)):
            return True
        return await self._beat_of(incarnation) is None

    async def slots(self) -> list[SlotRecord]:
        """See `Leases.slots`."""
        rows = await self._bridge.one(self._bind("slots"), READ)
        found = {slot: SlotRecord(slot, owner or "", epoch) for slot, owner, epoch in rows if epoch}
        return [found.get(slot) or SlotRecord(slot) for slot in range(SLOTS)]

    async def claim(self, wanted: Sequence[SlotRecord]) -> list[SlotRecord]:
        """See `Leases.claim`."""
        self._known.shared = True
        found: list[SlotRecord] = []
        for start in range(0, len(wanted), CLAIMS_AT_ONCE):
            found += await self._claim(wanted[start : start + CLAIMS_AT_ONCE])
        await trio.lowlevel.checkpoint()
        return found

    async def _claim(self, wanted: Sequence[SlotRecord]) -> list[SlotRecord]:
        writes = [
            self._bind("first_claim", slot.slot, slot.owner, 1)
            if slot.epoch == 1
            else self._bind("next_claim", slot.owner, slot.epoch, slot.slot, slot.epoch - 1)
            for slot in wanted
        ]
        try:
            answers = await self._bridge.all(writes, CONDITIONAL)
        except Unavailable as error:
            if error.applied is False:
                raise
            found = await self._look(wanted)
            if any(now.epoch < slot.epoch for now, slot in zip(found, wanted, strict=True)):
                # Whoever was asked may stand still, and begin to write it after our look.
                raise Unavailable("Cassandra: a claim may yet be written", applied=None) from error
            return found
        refused = [
            slot for slot, rows in zip(wanted, answers, strict=True) if not rows[0]["[applied]"]
        ]
        # The answer tells the epoch and not the owner.
        others = {slot.slot: slot for slot in await self._look(refused)}
        return [others.get(slot.slot, slot) for slot in wanted]

    async def _look(self, wanted: Sequence[SlotRecord]) -> list[SlotRecord]:
        asked = [self._bind("slot", slot.slot) for slot in wanted]
        answers = await self._bridge.all(asked, EXACT)
        return [
            SlotRecord(slot.slot, *rows[0]) if rows else SlotRecord(slot.slot)
            for slot, rows in zip(wanted, answers, strict=True)
        ]

    async def agree(self, name: str, value: str) -> str:
        """See `Leases.agree`."""
        if await self._applied(self._bind("agree", name, value)) is True:
            return value
        rows = await self._bridge.one(self._bind("agreed", name), EXACT)
        if not rows:
            raise Unavailable(f"Cassandra: nothing is kept under {name}", applied=None)
        return str(rows[0][0])

    async def _applied(self, write: Any) -> bool | None:
        """Whether it was; None where nobody knows."""
        try:
            (answer,) = await self._bridge.one(write, CONDITIONAL)
        except Unavailable as error:
            if error.applied is False:
                raise
            return None
        return bool(answer["[applied]"])

    async def _beat_of(self, incarnation: str) -> int | None:
        rows = await self._bridge.one(self._bind("node", incarnation), EXACT)
        return rows[0][0] if rows else None
