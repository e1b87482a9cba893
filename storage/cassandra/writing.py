"""`Timeline.commit`: first the entries, then what follows from them.

1. In one round: the rows of all logs, checkpoints where they are to move, marks. A checkpoint says
   what was settled *before* this commit, so it is true whichever of the two lands alone.
2. Where something follows from an entry: a look at the fence (`storage.cassandra.taking`), and
   then the tables of members and groups and older entries' new states.

A log whose rows do not fit into one part is written part after part. First the checkpoint, by which
the log is in hand and whatever else lies beyond it is void; then the rows, the last part first. As
long as the first one is missing there is a hole before the others, and none of them counts. No row
that a crash leaves so is of a higher version than that checkpoint: whoever takes up a log that is
in hand moves it to a higher one, and so they are void before anything is written in their place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import trio
from cassandra.query import UNSET_VALUE

from storage.cassandra.bridge import Bridge
from storage.cassandra.changes import Changes, NewState, changes_of, encode_changes, parts_of
from storage.cassandra.connection import READ, WRITE
from storage.cassandra.known import Knowledge, Known
from storage.cassandra.log import bucket_of, place
from storage.cassandra.packing import PART_MAX_BYTES, PART_MAX_ROWS, ROW_BYTES, Part, packed
from storage.cassandra.statements import Statements
from storage.cassandra.taking import Taking
from storage.cassandra.versions import Versions, version_of
from storage.errors import Unavailable
from storage.names import group_conv
from storage.records import Commit

CHECKPOINT_ENTRIES = 1_000
"""Entries beyond the checkpoint, after which it moves: so many are looked at when a log is taken
up."""

_Payloads = dict[str, dict[int, bytes]]


class Writing:
    """Commits, one at a time."""

    def __init__(
        self,
        bridge: Bridge,
        statements: Statements,
        replicas: Any,
        known: Knowledge,
        versions: Versions,
        taking: Taking,
    ) -> None:
        self._bridge = bridge
        self._statements = statements
        self._bind = statements.bind
        self._replicas = replicas
        self._known = known
        self._versions = versions
        self._taking = taking
        self.under_way: frozenset[str] = frozenset()
        """Conversations of the commit whose outcome is not known yet."""

    async def commit(self, commit: Commit) -> None:
        """See `Timeline.commit`."""
        commit = self._without_void(commit)
        convs = _conversations(commit)
        if not convs:
            await trio.lowlevel.checkpoint()
            return
        self.under_way = frozenset(convs)
        try:
            await self._commit(commit, convs)
        finally:
            self.under_way = frozenset()

    async def _commit(self, commit: Commit, convs: Sequence[str]) -> None:
        if self._known.shared and (bare := [c for c in convs if not commit.epochs.get(c)]):
            raise ValueError(f"{bare[0]}: where others may write, each has its epoch")
        try:
            known = await self._knowing(convs, commit.epochs)
            new, revised = self._checked(commit, known)
            changes = changes_of(commit)
            await self._find_rows(revised, changes)
            marks = await self._moved_marks(commit)
        except Unavailable as error:
            raise Unavailable(str(error), applied=False) from error
        versions = self._numbered(convs, commit.epochs)
        settled = False
        try:
            await self._write_entries(commit, known, versions, new, changes, marks)
            await self._follow(commit.epochs, versions, changes)
            settled = True
        finally:
            if not settled:
                self._known.doubt(convs)
        self._remember(commit, known, changes, marks)

    def _without_void(self, commit: Commit) -> Commit:
        """What is left when that is passed over which another writer of this store has ended."""
        void = {
            conv
            for conv, epoch in commit.epochs.items()
            if (known := self._known.get(conv)) is not None and known.epoch > epoch
        }
        return commit.without(void) if void else commit

    async def _knowing(self, convs: Sequence[str], epochs: Mapping[str, int]) -> dict[str, Known]:
        unknown = [
            conv
            for conv in convs
            if (known := self._known.get(conv)) is None or known.epoch != epochs.get(conv, 0)
        ]
        found = {conv: known for conv in convs if (known := self._known.get(conv)) is not None}
        if unknown:
            walks = await self._taking.take(unknown, epochs)
            for conv, walk in zip(unknown, walks, strict=True):
                # A writer whose time is over is not remembered; what it writes is void.
                found[conv] = self._known.get(conv) or Known(
                    epochs.get(conv, 0), walk.seq, walk.ts, walk.seq
                )
        return found

    def _checked(self, commit: Commit, known: Mapping[str, Known]) -> tuple[_Payloads, _Payloads]:
        """New entries, and new states of older ones. Raises `ValueError`, as `Timeline.commit`."""
        new: _Payloads = defaultdict(dict)
        revised: _Payloads = defaultdict(dict)
        for append in commit.appends:
            head = known[append.conv].seq + len(new[append.conv])
            if not append.payloads or append.first != head + 1:
                raise ValueError(
                    f"{append.conv}: {len(append.payloads)} entries from {append.first} on "
                    f"do not follow the head {head}"
                )
            new[append.conv].update(enumerate(append.payloads, append.first))
        for revision in commit.revisions:
            conv, seq = revision.conv, revision.seq
            if seq in new[conv]:
                new[conv][seq] = revision.payload
            elif 1 <= seq <= known[conv].seq:
                revised[conv][seq] = revision.payload
            else:
                raise ValueError(f"{conv}: no entry {seq} to revise")
        return new, revised

    async def _find_rows(self, revised: _Payloads, changes: dict[str, Changes]) -> None:
        wanted = [(conv, seq) for conv, seqs in revised.items() for seq in seqs]
        if not wanted:
            return
        asked = [self._bind("versions", conv, bucket_of(seq), seq) for conv, seq in wanted]
        answers = await self._bridge.all(asked, READ)
        for (conv, seq), rows in zip(wanted, answers, strict=True):
            if not rows:
                raise Unavailable(f"{conv}: entry {seq} is not in the store", applied=False)
            state = NewState(seq, max(version for _, version in rows), revised[conv][seq])
            changes.setdefault(conv, Changes()).states.append(state)

    async def _moved_marks(self, commit: Commit) -> dict[tuple[str, int], tuple[int, int]]:
        """Marks that are new. A writer with an epoch has all marks and moves them only forward."""
        marks: dict[tuple[str, int], tuple[int, int]] = {}
        unknown: defaultdict[str, set[int]] = defaultdict(set)
        for mark in commit.marks:
            key = mark.conv, mark.user
            read, delivered = marks.get(key, (0, 0))
            marks[key] = max(read, mark.read), max(delivered, mark.delivered)
            if not commit.epochs.get(mark.conv) and self._known.mark(*key) is None:
                unknown[mark.conv].add(mark.user)
        stored: dict[tuple[str, int], tuple[int, int]] = {}
        asked = [self._bind("some_marks", conv, list(users)) for conv, users in unknown.items()]
        answers = await self._bridge.all(asked, READ) if asked else []
        for conv, rows in zip(unknown, answers, strict=True):
            stored.update({(conv, user): (read, delivered) for user, read, delivered in rows})
        moved = {}
        for (conv, user), (read, delivered) in marks.items():
            old = None
            if not commit.epochs.get(conv):
                old = self._known.mark(conv, user) or stored.get((conv, user))
            old_read, old_delivered = old or (0, 0)
            mark_ = max(read, old_read), max(delivered, old_delivered)
            if mark_ != old:
                moved[conv, user] = mark_
        return moved

    def _numbered(self, convs: Sequence[str], epochs: Mapping[str, int]) -> dict[str, int]:
        number = self._versions.next()
        return {conv: version_of(epochs.get(conv, 0), number) for conv in convs}

    async def _write_entries(
        self,
        commit: Commit,
        known: Mapping[str, Known],
        versions: Mapping[str, int],
        new: _Payloads,
        changes: Mapping[str, Changes],
        marks: Mapping[tuple[str, int], tuple[int, int]],
    ) -> None:
        times = {append.conv: append.ts for append in commit.appends}
        chains = {
            conv: self._rows(conv, versions[conv], payloads, times[conv], changes.get(conv))
            for conv, payloads in new.items()
            if payloads
        }
        checkpoints = {
            conv: self._checkpoint(conv, known[conv], version)
            for conv, version in versions.items()
            if known[conv].due or not known[conv].opened or len(chains.get(conv, ())) > 1
        }
        for conv, chain in chains.items():
            if len(chain) > 1:
                chain.append(checkpoints.pop(conv))
                chain.reverse()
        parts = list(checkpoints.values())
        for (conv, user), mark in marks.items():
            version = versions[conv]
            parts.append(Part([self._bind("put_mark", version, *mark, conv, user)], ROW_BYTES))
            parts.append(Part([self._bind("put_own_mark", version, *mark, user, conv)], ROW_BYTES))
        await self._write_rounds(parts, list(chains.values()))

    def _rows(
        self,
        conv: str,
        version: int,
        payloads: Mapping[int, bytes],
        ts: int,
        changes: Changes | None,
    ) -> list[Part]:
        """The rows of one log, in parts. The last row alone has what the commit is known by."""
        parts: list[Part] = []
        at = None
        last = max(payloads)
        for seq, payload in payloads.items():
            added = encode_changes(changes) if changes and seq == last else None
            size = len(payload) + len(added or b"") + ROW_BYTES
            bucket = bucket_of(seq)
            row = self._bind(
                "add_row",
                *(conv, bucket, seq, version, payload),
                ts if seq == last else UNSET_VALUE,
                UNSET_VALUE if added is None else added,
                version,
            )
            full = parts and (
                len(parts[-1].statements) >= PART_MAX_ROWS
                or parts[-1].bytes + size > PART_MAX_BYTES
            )
            if bucket != at or full:
                parts.append(Part([], 0))
                at = bucket
            parts[-1].statements.append(row)
            parts[-1].bytes += size
        return parts

    def _checkpoint(self, conv: str, known: Known, version: int) -> Part:
        values = (version, known.seq, known.ts, version, True)
        return Part([self._bind("put_head", *values, *place(conv))], len(conv) + ROW_BYTES)

    async def _write_rounds(self, parts: list[Part], chains: Sequence[list[Part]]) -> None:
        written = False
        for number in range(max([1, *map(len, chains)])):
            parts = parts + [chain[number] for chain in chains if number < len(chain)]
            try:
                await self._bridge.all(packed(parts, self._replicas), WRITE)
            except Unavailable as error:
                if written:
                    raise Unavailable(str(error), applied=None) from error
                raise
            written = True
            parts = []

    async def _follow(
        self,
        epochs: Mapping[str, int],
        versions: Mapping[str, int],
        changes: Mapping[str, Changes],
    ) -> None:
        """Let all follow from the entries that are durable now, unless another has taken over."""
        convs = [conv for conv, change in changes.items() if change]
        if not convs:
            return
        try:
            fenced = {conv for conv in convs if epochs.get(conv)}
            rows = await self._taking.log.head_rows(list(fenced)) if fenced else []
            void = {
                conv for conv, row in zip(fenced, rows, strict=True) if row.epoch > epochs[conv]
            }
            parts = [
                part
                for conv in convs
                if conv not in void
                for part in parts_of(self._statements, conv, changes[conv], versions[conv])
            ]
            await self._bridge.all(packed(parts, self._replicas), WRITE)
        except Unavailable as error:
            raise Unavailable(str(error), applied=None) from error

    def _remember(
        self,
        commit: Commit,
        known: Mapping[str, Known],
        changes: Mapping[str, Changes],
        marks: Mapping[tuple[str, int], tuple[int, int]],
    ) -> None:
        for conv, found in known.items():
            if found.due or not found.opened:
                found.checkpoint = found.seq
            found.opened, found.due = True, bool(changes.get(conv))
            if self._known.get(conv) is found:  # else it was taken up again meanwhile
                self._known.written(conv)
        for append in commit.appends:
            found = known[append.conv]
            found.seq, found.ts = append.last, append.ts
            found.due = found.due or found.seq - found.checkpoint >= CHECKPOINT_ENTRIES
        for (conv, user), mark in marks.items():
            if not commit.epochs.get(conv):
                self._known.put_mark(conv, user, mark)


def _conversations(commit: Commit) -> list[str]:
    found = dict.fromkeys(append.conv for append in commit.appends)
    found.update(dict.fromkeys(revision.conv for revision in commit.revisions))
    found.update(dict.fromkeys(group_conv(group.id) for group in commit.groups))
    found.update(dict.fromkeys(member.conv for member in commit.members))
    found.update(dict.fromkeys(conv for conv, _ in commit.gone))
    found.update(dict.fromkeys(mark.conv for mark in commit.marks))
    return list(found)
