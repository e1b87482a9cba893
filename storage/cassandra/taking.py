"""Taking up logs as their writer, and putting them away again.

Who takes up a log under a higher epoch than the last (1) writes a *fence*, (2) reads what lies
beyond the checkpoint, (3) does again what follows from these entries, (4) moves the checkpoint to
the head. A writer looks at the fence after its entries are durable and before it lets anything
follow from them (`storage.cassandra.writing`). So either it sees the fence and stops, or its
entries were there when the log was read in (2): nothing ever follows from a void entry. After (4)
no late row can count. All of it under the taker's version, so that it wins over what lands late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from storage.cassandra.bridge import Bridge
from storage.cassandra.changes import decode_changes, parts_of
from storage.cassandra.connection import READ, WRITE
from storage.cassandra.known import Knowledge, Known
from storage.cassandra.log import HeadRow, Log, Walk, place
from storage.cassandra.packing import ROW_BYTES, Part, packed
from storage.cassandra.statements import Statements
from storage.cassandra.versions import COMMIT_BITS, Versions, epoch_of, version_of


class Taking:
    """`Timeline.load` as far as it concerns the log, and `put_away`."""

    def __init__(
        self,
        bridge: Bridge,
        statements: Statements,
        replicas: Any,
        known: Knowledge,
        versions: Versions,
    ) -> None:
        self._bridge = bridge
        self._statements = statements
        self._bind = statements.bind
        self._replicas = replicas
        self._known = known
        self._versions = versions
        self.log = Log(bridge, statements)

    async def take(self, convs: Sequence[str], epochs: Mapping[str, int]) -> list[Walk]:
        """Take these up as their writer; up to where each goes."""
        rows = await self.log.head_rows(convs)
        fences = [
            self._bind("put_fence", epoch << COMMIT_BITS, epoch, *place(conv))
            for conv, row in zip(convs, rows, strict=True)
            if row.exists and row.fence < (epoch := epochs.get(conv, 0))
        ]
        if fences:
            await self._bridge.all(fences, WRITE)
        walks = await self.log.beyond(convs, rows)
        for conv, walk in zip(convs, walks, strict=True):
            if (walk.row.open or walk.run) and epoch_of(walk.version) < epochs.get(conv, 0):
                self._known.left_by_other(conv)
        await self._adopt(convs, walks, epochs)
        return walks

    def in_doubt(self, conv: str) -> bool:
        """As `Loaded.doubt`."""
        return self._known.is_left_by_other(conv)

    async def look(self, convs: Sequence[str]) -> list[Walk]:
        """Up to where each log goes, for who is not their writer.

        Where no epoch was ever given there is one process alone, which is the writer of all.
        """
        lapses = self._known.lapses
        unknown = [conv for conv in convs if self._known.alone(conv) is None]
        walks = dict(zip(unknown, await self.log.walks(unknown), strict=True)) if unknown else {}
        for conv in convs:
            if conv not in walks and (known := self._known.alone(conv)) is not None:
                walks[conv] = Walk(HeadRow(known.seq, known.ts, 0, exists=True), [])
        mine = [
            conv
            for conv in unknown
            if not self._known.shared
            and epoch_of(walks[conv].version) == 0
            and self._known.get(conv) is None
        ]
        if mine and lapses == self._known.lapses:
            await self._adopt(mine, [walks[conv] for conv in mine], {})
        return [walks[conv] for conv in convs]

    async def _adopt(
        self, convs: Sequence[str], walks: Sequence[Walk], epochs: Mapping[str, int]
    ) -> None:
        taken = [
            (conv, walk, epochs.get(conv, 0))
            for conv, walk in zip(convs, walks, strict=True)
            if epochs.get(conv, 0) >= max(walk.row.fence, epoch_of(walk.version))
        ]
        for _, walk, _ in taken:
            self._versions.saw(walk.version)
        lapses = self._known.lapses
        await self._again(taken)
        settled = await self._settle(taken)
        if epochs or lapses == self._known.lapses:
            for conv, walk, epoch in taken:
                if epochs or self._known.get(conv) is None:
                    found = Known(epoch, walk.seq, walk.ts, walk.seq, opened=conv in settled)
                    self._known.put(conv, found)

    async def _again(self, taken: Sequence[tuple[str, Walk, int]]) -> None:
        """Do what follows from the entries beyond the checkpoint; it may have been done."""
        parts = [
            part
            for conv, walk, _ in taken
            for row in walk.run
            if row.changes is not None
            for part in parts_of(self._statements, conv, decode_changes(row.changes), row.version)
        ]
        open_ = [(conv, walk.row.version) for conv, walk, _ in taken if walk.row.open]
        asked = [self._bind("all_marks", conv) for conv, _ in open_]
        answers = await self._bridge.all(asked, READ) if asked else []
        for (conv, version), rows in zip(open_, answers, strict=True):
            parts += [
                Part([self._bind("put_own_mark", at, read, delivered, user, conv)], ROW_BYTES)
                for user, read, delivered, at in rows
                if at is not None and at >= version
            ]
        if parts:
            await self._bridge.all(packed(parts, self._replicas), WRITE)

    async def _settle(self, taken: Sequence[tuple[str, Walk, int]]) -> set[str]:
        """Move the checkpoint of those in which something may be, or come to be, beyond it."""
        number = self._versions.next()
        unsettled = [
            (conv, walk, version_of(epoch, number))
            for conv, walk, epoch in taken
            if walk.row.open or walk.run or self._known.is_doubtful(conv)
        ]
        puts = [
            self._bind("put_head", version, walk.seq, walk.ts, version, True, *place(conv))
            for conv, walk, version in unsettled
        ]
        if puts:
            await self._bridge.all(puts, WRITE)
        for conv, _, _ in unsettled:
            self._known.settled(conv)
        return {conv for conv, _, _ in unsettled}

    async def put_away(self, epochs: Mapping[str, int]) -> None:
        """`Timeline.put_away`."""
        # Before anything is waited for: this very store may take the log up again meanwhile.
        # What that writes has a higher number and wins, and what it then knows is not forgotten.
        number = self._versions.next()
        known = {conv: self._known.get(conv) for conv in epochs}
        for conv, found in known.items():
            if found is None or found.epoch <= epochs[conv]:
                self._known.forget(conv)
        unknown = [conv for conv, found in known.items() if found is None]
        walks = dict(zip(unknown, await self.log.walks(unknown), strict=True)) if unknown else {}
        left = {
            conv: walk
            for conv, walk in walks.items()
            if walk.row.open and epoch_of(walk.version) == epochs[conv]
        }
        await self._finish(left, epochs)
        puts = []
        for conv, epoch in epochs.items():
            found, walk = known[conv], left.get(conv)
            version = version_of(epoch, number)
            if found is not None and found.opened and found.epoch == epoch:
                head = (found.seq, found.ts)
            elif walk is not None:
                head = (walk.seq, walk.ts)
            else:
                continue
            puts.append(self._bind("put_head", version, *head, version, False, *place(conv)))
        await self._bridge.all(puts, WRITE)

    async def _finish(self, walks: Mapping[str, Walk], epochs: Mapping[str, int]) -> None:
        """Do what follows from commits in doubt after which the log was not loaded again: nobody
        looks at them once the checkpoint is past them. A writer, so it looks at the fence."""
        rows = await self.log.head_rows(list(walks))
        await self._again(
            [
                (conv, walk, epochs[conv])
                for (conv, walk), row in zip(walks.items(), rows, strict=True)
                if row.epoch <= epochs[conv]
            ]
        )
