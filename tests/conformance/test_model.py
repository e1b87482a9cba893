"""Any sequence of commits, right and wrong ones, against a model of lists and dicts.

After every commit all windows of a log, heads, members, marks and memberships are compared.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.interfaces import Store
from storage.records import Append, Commit, Head, Mark, Member, Revision
from tests.conformance.conftest import Opener
from tests.conformance.making import payload

CONVS = ["g/1", "g/2", "d/1/2", "d/2/3"]
USERS = [1, 2, 3]

convs = st.sampled_from(CONVS)
users = st.sampled_from(USERS)
small = st.integers(0, 6)
bodies = st.one_of(
    st.text(max_size=8), st.builds(lambda n: "x" * n, st.sampled_from([900, 1100, 70_000, 300_000]))
)


@dataclass
class Planned:
    """A commit before it is known where it falls: seqs are relative to the head of their time."""

    appends: list[tuple[str, list[str], int]] = field(default_factory=list)
    """(conv, bodies, how far off the head its first seq is)"""
    revisions: list[tuple[str, int, str]] = field(default_factory=list)
    """(conv, how far below the head, body)"""
    members: list[Member] = field(default_factory=list)
    gone: list[tuple[str, int]] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)


offsets = st.sampled_from([0, 0, 0, 0, 0, 0, 0, 0, -1, 1])
lengths = st.one_of(st.lists(bodies, min_size=1, max_size=4), st.just(["y"] * 300))
plans = st.builds(
    Planned,
    appends=st.lists(st.tuples(convs, lengths, offsets), max_size=4),
    revisions=st.lists(st.tuples(convs, st.integers(0, 9), bodies), max_size=2),
    members=st.lists(st.builds(Member, convs, users, st.just("admin"), small), max_size=2),
    gone=st.lists(st.tuples(convs, users), max_size=2),
    marks=st.lists(st.builds(Mark, convs, users, small, small), max_size=3),
)
windows = st.tuples(
    convs,
    st.none() | st.integers(-1, 700),
    st.none() | st.integers(-1, 700),
    st.integers(0, 400),
)


class Model:
    """What a store should hold, in the plainest form."""

    def __init__(self) -> None:
        self.logs: dict[str, list[bytes]] = {conv: [] for conv in CONVS}
        self.ts = dict.fromkeys(CONVS, 0)
        self.members: dict[tuple[str, int], Member] = {}
        self.marks: dict[tuple[str, int], Mark] = {}
        self.clock = 0

    def apply(self, plan: Planned) -> tuple[Commit, bool]:
        """The commit that was planned, and whether it is right; if so the model follows it."""
        commit, logs, right = self._located(plan)
        if right:
            self.logs = logs
            for append in commit.appends:
                self.ts[append.conv] = append.ts
            for pair in commit.gone:
                self.members.pop(pair, None)
            for member in commit.members:
                if member.conv.startswith("g/"):
                    self.members[member.conv, member.user] = member
            for mark in commit.marks:
                old = self.marks.get((mark.conv, mark.user), Mark(mark.conv, mark.user))
                self.marks[mark.conv, mark.user] = Mark(
                    mark.conv,
                    mark.user,
                    max(old.read, mark.read),
                    max(old.delivered, mark.delivered),
                )
        return commit, right

    def _located(self, plan: Planned) -> tuple[Commit, dict[str, list[bytes]], bool]:
        logs = {conv: list(log) for conv, log in self.logs.items()}
        commit = Commit(members=plan.members, gone=plan.gone, marks=plan.marks)
        right = True
        for conv, texts, offset in plan.appends:
            self.clock += 1
            first = len(logs[conv]) + 1 + offset
            entries = [payload(first + n, text) for n, text in enumerate(texts)]
            commit.appends.append(Append(conv, first, entries, self.clock))
            logs[conv] += entries
            right = right and offset == 0
        for conv, below, text in plan.revisions:
            seq = len(logs[conv]) - below
            commit.revisions.append(Revision(conv, seq, payload(9, text)))
            if seq >= 1:
                logs[conv][seq - 1] = commit.revisions[-1].payload
            right = right and seq >= 1
        return commit, logs, right

    def window(self, conv: str, after: int | None, before: int | None, limit: int) -> list[bytes]:
        seqs = [
            seq
            for seq in range(1, len(self.logs[conv]) + 1)
            if (after is None or seq > after) and (before is None or seq < before)
        ]
        chosen = seqs[:limit] if after is not None else seqs[max(0, len(seqs) - limit) :]
        return [self.logs[conv][seq - 1] for seq in chosen]

    def head(self, conv: str) -> Head:
        return Head(seq=len(self.logs[conv]), ts=self.ts[conv])

    def users_of(self, conv: str) -> list[Member]:
        if conv.startswith("d/"):
            return [Member(conv, int(user)) for user in conv.split("/")[1:]]
        return [member for (of, _), member in sorted(self.members.items()) if of == conv]

    def convs_of(self, user: int) -> set[str]:
        return {
            conv
            for conv in CONVS
            if any(member.user == user for member in self.users_of(conv))
            and (conv.startswith("g/") or self.logs[conv])
        }


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(
    planned=st.lists(st.tuples(plans, st.lists(windows, max_size=4)), min_size=1, max_size=12),
)
def test_a_store_is_what_the_model_says(
    open_store: Opener, planned: list[tuple[Planned, list[tuple[str, int | None, int | None, int]]]]
) -> None:
    async def live() -> None:
        with tempfile.TemporaryDirectory() as folder:
            model = Model()
            async with open_store(Path(folder)) as store:
                for plan, asked in planned:
                    await _commit(store, model, plan)
                    for conv, after, before, limit in asked:
                        found = await store.read(conv, after=after, before=before, limit=limit)
                        assert found == model.window(conv, after, before, limit)
                    await _compare(store, model)

    trio.run(live)


async def _commit(store: Store, model: Model, plan: Planned) -> None:
    commit, right = model.apply(plan)
    try:
        await store.commit(commit)
    except ValueError:
        assert not right
    else:
        assert right


async def _compare(store: Store, model: Model) -> None:
    assert await store.heads(CONVS) == {conv: model.head(conv) for conv in CONVS}
    for conv, loaded in (await store.load(CONVS, 5)).items():
        assert loaded.head == model.head(conv)
        assert loaded.tail == model.logs[conv][-5:]
        assert loaded.members == model.users_of(conv)
        assert loaded.marks == [mark for (of, _), mark in sorted(model.marks.items()) if of == conv]
    for user in USERS:
        memberships = await store.memberships(user)
        assert {m.conv for m in memberships} == model.convs_of(user)
        assert all(m.head == model.head(m.conv) for m in memberships)
        for m in memberships:
            mark = model.marks.get((m.conv, user), Mark(m.conv, user))
            assert (m.read, m.delivered) == (mark.read, mark.delivered)
