"""Logs written in several parts, over crashes at every point, writers that are too late and clocks
that were set back: a commit is there as a whole or not at all, and what is left over is never seen.
"""

from __future__ import annotations

from unittest.mock import patch

import pytest
import trio
from cassandra.query import UNSET_VALUE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from storage.cassandra.versions import version_of
from storage.errors import Unavailable
from storage.records import Append, Commit, Loaded, Member, Revision
from tests.conformance.making import payload
from tests.storage.cassandra.small import Failure, Tables, Writer, in_parts

CONV = "g/1"
ALL = 999


class Turn(Struct):
    """A commit of the model: its entries, and of every third one more: a member who joins by the
    first of them, and an edit of entry 1."""

    number: int
    first: int
    count: int

    @property
    def has_more(self) -> bool:
        return self.number % 3 == 0

    @property
    def payloads(self) -> list[bytes]:
        return [payload(self.first + n, self.number) for n in range(self.count)]

    def commit(self, epochs: dict[str, int]) -> Commit:
        commit = Commit([Append(CONV, self.first, self.payloads, self.number)], epochs=epochs)
        if self.has_more:
            commit.revisions = [Revision(CONV, 1, payload(1, -self.number))]
            commit.members = [Member(CONV, self.number, since=self.first)]
        return commit


Log = list[Turn]


def entries(log: Log) -> list[bytes]:
    found = [each for turn in log for each in turn.payloads]
    for turn in log:
        if turn.has_more:
            found[0] = payload(1, -turn.number)
    return found


class Plan(Struct):
    """A turn, what becomes of it, and who goes on."""

    count: int
    failure: Failure | None = None
    overtaken: Plan | None = None
    """Another writer takes the log up and has this turn, before `failure.round` of this one."""
    put_away: bool = False
    """Whoever had the log puts it away afterwards."""
    by_other: bool = False
    """Another goes on, or the same one after it has loaded it again."""
    late: frozenset[int] = frozenset()
    """Of what was lost, these land once the log was taken up again."""


class Chat:
    """A log, those who write it one after the other, and what it has to be."""

    def __init__(self, *, shared: bool) -> None:
        self._tables = Tables()
        self._shared = shared
        self._epoch = 1
        self._now_s = 0
        self._writer = self._another()
        self._log: Log = []
        self._at_rest = False
        """It was put away, and nothing was surely written since."""
        self._void_later: list[Log] = []
        """What it may turn into as long as who took it up at rest has not written."""
        self._turns = 0

    def time_ns(self) -> int:
        """Every writer's clock is behind that of the one before."""
        return 10**18 * 2 + self._now_s * 10**9

    def _another(self) -> Writer:
        return Writer(self._tables, shared=self._shared)

    def _epochs(self) -> dict[str, int]:
        return {CONV: self._epoch} if self._shared else {}

    async def go_on(self, plan: Plan) -> None:
        logs = await self._write(plan)
        if self._shared or not plan.by_other:
            await self._look(logs)
        if plan.put_away:
            await self._writer.taking.put_away(self._epochs())
        if plan.by_other:
            self._replace()
        await self._take_up(logs, by_other=plan.by_other)
        self._at_rest = self._at_rest or plan.put_away
        if self._shared:
            self._tables.land_late(plan.late)
        await self._look([self._log, *self._void_later])
        await self._check()

    async def _write(self, plan: Plan) -> list[Log]:
        """What the log may be by now."""
        turn = self._next(plan.count)
        before, after = self._log, [*self._log, turn]
        overtaken: list[Log] = []
        failure = plan.failure
        if failure is not None and (other := plan.overtaken) is not None and self._shared:
            failure = Failure(
                failure.round, meanwhile=lambda: self._overtake(other, before, after, overtaken)
            )
        writer = self._writer
        writer.fail(failure)
        try:
            await writer.writing.commit(turn.commit(self._epochs()))
        except Unavailable:
            return overtaken or [before, after, *self._void_later]
        finally:
            writer.fail(None)
        if not overtaken:
            self._at_rest = False
        return overtaken or [after]

    async def _overtake(self, plan: Plan, before: Log, after: Log, logs: list[Log]) -> None:
        self._replace()
        await self._take_up([before, after, *self._void_later], by_other=True)
        logs += await self._write(plan)

    async def _take_up(self, logs: list[Log], *, by_other: bool) -> None:
        self._log = self._found_in(logs, await self._load())
        others = [log for log in logs if log != self._log]
        self._void_later = others if by_other and self._at_rest else []

    def _replace(self) -> None:
        self._epoch += 1
        self._now_s = 0
        self._writer = self._another()

    def _next(self, count: int) -> Turn:
        self._turns += 1
        self._now_s += 1
        return Turn(self._turns, 1 + len(entries(self._log)), count)

    async def _load(self) -> Loaded:
        return (await self._writer.convs.load([CONV], ALL, self._epochs()))[CONV]

    @staticmethod
    def _found_in(logs: list[Log], loaded: Loaded) -> Log:
        """Which of them it is, with all that follows from it."""
        (log,) = [log for log in logs if entries(log) == loaded.tail]
        assert loaded.head.seq == len(loaded.tail)
        assert [m.user for m in loaded.members] == [turn.number for turn in log if turn.has_more]
        assert loaded.head.ts == (log[-1].number if log else 0)
        return log

    async def _look(self, logs: list[Log]) -> None:
        """What another node, or the same process, reads of it. Not every edit is there yet."""
        reader = self._another() if self._shared else self._writer
        possible = [entries(log)[1:] for log in logs]
        assert await reader.pages.read(CONV, after=1, limit=ALL) in possible
        assert (await reader.pages.read(CONV, limit=ALL))[1:] in possible
        assert await reader.pages.read(CONV, after=1, limit=4) in [each[:4] for each in possible]
        head = len(entries(logs[0]))
        if head:
            page = await reader.pages.read(CONV, after=head, limit=3)
            assert page in [each[head - 1 :][:3] for each in possible]

    async def _check(self) -> None:
        """Whoever loads it finds all of it."""
        if not self._void_later:
            reader = self._another() if self._shared else self._writer
            self._found_in([self._log], (await reader.convs.load([CONV], ALL, {}))[CONV])


rounds = st.integers(0, 6)
batches = st.frozensets(st.integers(0, 4))
failures = st.builds(Failure, rounds, batches)
plain = st.builds(Plan, st.integers(1, 8), st.none() | failures)
plans = st.builds(
    Plan,
    st.integers(1, 8),
    st.none() | failures,
    st.none() | plain,
    st.booleans(),
    st.booleans(),
    st.frozensets(st.integers(0, 9)),
)


@pytest.mark.parametrize("shared", [True, False], ids=["many nodes", "a process alone"])
@settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)
@given(planned=st.lists(plans, min_size=2, max_size=8))
def test_a_commit_is_there_as_a_whole_or_not_at_all(shared: bool, planned: list[Plan]) -> None:
    chat = Chat(shared=shared)

    async def live() -> None:
        await chat.go_on(Plan(1))
        for plan in planned:
            await chat.go_on(plan)

    with in_parts(2, 3), patch("storage.cassandra.versions.time.time_ns", chat.time_ns):
        trio.run(live)


async def test_a_piece_of_a_commit_is_no_commit() -> None:
    """As one finds it whose read came to one replica later than to another."""
    tables = Tables()
    writer = Writer(tables, shared=True)
    version = version_of(1, 1)

    async def head_with(*rows: tuple[int, object]) -> int:
        for seq, ts in rows:
            values = (CONV, 0, seq, version, payload(seq), ts, UNSET_VALUE, version)
            tables.write(writer.bind("add_row", *values))
        return (await writer.taking.look([CONV]))[0].seq

    assert await head_with((1, UNSET_VALUE), (2, UNSET_VALUE)) == 0
    assert await head_with((3, 1003)) == 3
