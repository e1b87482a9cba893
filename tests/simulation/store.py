"""The one store of a simulated cluster, and what stands between it and each node.

Every call of a node may be slow or fail, and a write that failed may have landed, or land later,
whatever has become of the node by then. What lands too late is void, as the contract says. If its
log was put away when the new writer took it up, readers may see it until that has written (as where
rows carry versions and nothing has moved the checkpoint yet), unless `strict`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from msgspec import Struct

from storage.errors import StoreError, Unavailable
from storage.memory import MemoryStore
from storage.memory.timeline import _Conversation as StoredConversation
from storage.names import group_conv
from storage.records import Append, Commit, Head, Loaded, Membership, decode_entry
from tests.simulation.scheduling import Outside

if TYPE_CHECKING:
    from tests.simulation.weather import Weather

T = TypeVar("T")

WRITES = frozenset(
    {
        "commit",
        "put_away",
        "put_settings",
        "next_group_id",
        "create_users",
        "update_user",
        "set_password",
        "seen",
        "create_session",
        "rotate",
        "end_session",
        "purge",
        "beat",
        "remove",
        "claim",
        "keep_alive",
        "update",
        "forget",
    }
)
"""Calls whose failure may leave a doubt. A load is one too, but is safe to repeat."""


class Written(Struct):
    """One entry that became part of a log, as it was first written."""

    payload: bytes
    epoch: int
    at: float
    revised: list[bytes]


class SharedStore(MemoryStore):
    """All logs. `history` keeps, for the checker, what was ever visible of each entry.

    A commit is late when another taking-up of its conversation (`load` as its writer), that was
    begun after the commit was sent, came before it; and when its epoch is over.
    """

    def __init__(self, *, strict: bool) -> None:
        super().__init__()
        self.strict = strict
        self.history: dict[str, list[Written]] = {}
        self.late = 0
        self.ghosts_adopted = 0
        self.misused: list[str] = []
        """What its contract forbids, and was done all the same."""
        self._begun: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._settled: Counter[str] = Counter()
        """The taking-up that moved the checkpoint last: what was sent before it is never seen."""
        self._ghosts: dict[str, Commit] = {}
        self._checkpoints: dict[str, int] = {}
        """All that others are told of a log that its writer has in hand."""

    # Writing

    def begun(self, convs: Iterable[str]) -> dict[str, int]:
        """How often they were begun to be taken up; to be kept with a commit until it lands."""
        return {conv: self._begun[conv] for conv in convs}

    def begin(self, convs: Iterable[str]) -> dict[str, int]:
        """A taking-up begins: it is sent, and lands at whatever time."""
        self._begun.update(convs)
        return self.begun(convs)

    async def land(self, commit: Commit, begun: dict[str, int]) -> None:
        """A commit arrives, at whatever time."""
        late = {
            conv
            for conv, count in begun.items()
            if self._done[conv] > count or commit.epochs.get(conv, 0) < self._epoch(conv)
        }
        for conv in sorted(late):
            self.late += 1
            if begun[conv] >= self._settled[conv]:
                self._haunt(conv, part_of(commit, conv))
        if late:
            commit = part_of(commit, *(begun.keys() - late))
        if commit:
            await self.commit(commit)

    async def commit(self, commit: Commit) -> None:
        await super().commit(commit)
        now = trio.current_time()
        for append in commit.appends:
            self._ghosts.pop(append.conv, None)
            entries = self.history.setdefault(append.conv, [])
            epoch = commit.epochs.get(append.conv, 0)
            entries += [Written(payload, epoch, now, []) for payload in append.payloads]
        for revision in commit.revisions:
            self.history[revision.conv][revision.seq - 1].revised.append(revision.payload)

    def _haunt(self, conv: str, part: Commit) -> None:
        follows = part.appends and part.appends[0].first == self._head(conv).seq + 1
        if not self.strict and follows and conv not in self._ghosts:
            self._ghosts[conv] = part

    async def land_load(
        self,
        convs: Sequence[str],
        tail: int,
        epochs: Mapping[str, int] | None,
        begun: dict[str, int],
    ) -> dict[str, Loaded]:
        """A taking-up arrives."""
        for conv, count in begun.items():
            if epochs is None or epochs[conv] >= self._epoch(conv):
                self._done[conv] = max(self._done[conv], count)
                self._checkpoints[conv] = self._head(conv).seq
                ghost = self._ghosts.pop(conv, None)
                if ghost is not None:
                    await self._adopt(ghost)
                if self._conversation(conv).open:
                    self._settle(conv)
        return await self.load(convs, tail, epochs)

    async def put_away(self, epochs: Mapping[str, int]) -> None:
        for conv, epoch in epochs.items():
            if epoch >= self._epoch(conv) and self._conversation(conv).open:
                self._settle(conv)
        await super().put_away(epochs)

    def _settle(self, conv: str) -> None:
        self._ghosts.pop(conv, None)
        self._settled[conv] = self._done[conv]

    async def _adopt(self, ghost: Commit) -> None:
        """Nobody has written since: what came late is part of the log after all."""
        self.ghosts_adopted += 1
        ghost.epochs = {}
        await self.commit(ghost)
        for append in ghost.appends:
            self._conversation(append.conv).open = True

    # Reading

    def _ghost_payloads(self, conv: str) -> list[bytes]:
        ghost = self._ghosts.get(conv)
        return [p for append in ghost.appends for p in append.payloads] if ghost else []

    async def read(
        self, conv: str, *, after: int | None = None, before: int | None = None, limit: int
    ) -> list[bytes]:
        payloads = await super().read(conv, after=after, before=before, limit=limit)
        if after is not None and len(payloads) < limit:
            top = self._head(conv).seq
            ghosts = self._ghost_payloads(conv)
            seqs = range(top + 1, top + 1 + len(ghosts))
            payloads = payloads + [
                payload
                for seq, payload in zip(seqs, ghosts, strict=True)
                if seq > after and (before is None or seq < before)
            ]
        return payloads[:limit]

    async def heads(self, convs: Sequence[str]) -> dict[str, Head]:
        heads = await super().heads(convs)
        return {conv: self._haunted(conv, head) for conv, head in heads.items()}

    def _membership(self, user: int, conv: str) -> Membership:
        membership = super()._membership(user, conv)
        membership.head = self._haunted(conv, membership.head)
        return membership

    def _haunted(self, conv: str, head: Head) -> Head:
        if head.open:
            return Head(seq=self._checkpoints.get(conv, 0), ts=head.ts, open=True)
        ghosts = self._ghost_payloads(conv)
        if not ghosts:
            return head
        return Head(seq=head.seq + len(ghosts), ts=decode_entry(ghosts[-1]).ts, open=head.open)

    # For the checker

    def logs(self) -> dict[str, list[bytes]]:
        """Every log as it is now."""
        return {name: list(conv.payloads) for name, conv in self._conversations.items()}

    def stored(self, conv: str) -> StoredConversation:
        """All that is kept of it, to be looked at."""
        return self._conversations.get(conv) or StoredConversation()

    def epoch_of(self, conv: str) -> int:
        """The highest under which it was taken up."""
        return self._epoch(conv)

    def members_now(self, conv: str) -> list[int]:
        return [member.user for member in self._members(conv)]


def part_of(commit: Commit, *convs: str) -> Commit:
    """Only what a commit says of these conversations."""
    wanted = set(convs)
    return Commit(
        appends=[
            Append(part.conv, part.first, list(part.payloads), part.ts)
            for part in commit.appends
            if part.conv in wanted
        ],
        revisions=[part for part in commit.revisions if part.conv in wanted],
        groups=[part for part in commit.groups if group_conv(part.id) in wanted],
        members=[part for part in commit.members if part.conv in wanted],
        gone=[part for part in commit.gone if part[0] in wanted],
        marks=[part for part in commit.marks if part.conv in wanted],
        epochs={conv: epoch for conv, epoch in commit.epochs.items() if conv in wanted},
    )


def _convs(commit: Commit) -> set[str]:
    return {
        *(part.conv for part in commit.appends),
        *(part.conv for part in commit.revisions),
        *(group_conv(part.id) for part in commit.groups),
        *(part.conv for part in commit.members),
        *(part[0] for part in commit.gone),
        *(part.conv for part in commit.marks),
        *commit.epochs,
    }


class Distant:
    """Another object's methods, called over a network that the weather rules.

    The call itself runs outside the caller's process: it goes on when that stands still or dies.
    """

    def __init__(self, target: Any, weather: Weather, outside: Outside) -> None:
        self._target = target
        self._weather = weather
        self._outside = outside

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._target, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._call(name, lambda: method(*args, **kwargs))

        return call

    async def _call(self, name: str, act: Callable[[], Awaitable[T]]) -> T:
        await trio.lowlevel.checkpoint()
        answer = _Answer()
        self._outside.start(self._carry_out, name, act, answer)
        await answer.come.wait()
        if answer.error is not None:
            raise answer.error
        return answer.value  # type: ignore[no-any-return]

    async def _carry_out(
        self, name: str, act: Callable[[], Awaitable[Any]], answer: _Answer
    ) -> None:
        fate = self._weather.fate(name, writes=name in WRITES)
        await trio.sleep(fate.reach_s)
        if fate.lands:
            await _land(act, answer)
        if fate.fails is not None:
            answer.fail(fate.fails)
            if fate.lands_after_s is not None:
                await trio.sleep(fate.lands_after_s)
                await _land(act, _Answer())
            return
        await trio.sleep(fate.return_s)
        answer.come.set()


async def _land(act: Callable[[], Awaitable[Any]], answer: _Answer) -> None:
    """What the store itself refuses is an answer like any other."""
    try:
        answer.value = await act()
    except (StoreError, ValueError) as error:
        answer.error = error


class _Answer:
    def __init__(self) -> None:
        self.come = trio.Event()
        self.value: Any = None
        self.error: Exception | None = None

    def fail(self, error: Unavailable) -> None:
        self.error = error
        self.come.set()


class DistantStore(Distant):
    """`storage.interfaces.Store` of one node."""

    _target: SharedStore
    _committing: frozenset[str] = frozenset()

    async def commit(self, commit: Commit) -> None:
        convs = _convs(commit)
        copied = part_of(commit, *convs)
        begun = self._target.begun(convs)
        self._committing = frozenset(convs)
        try:
            await self._call("commit", lambda: self._target.land(copied, begun))
        finally:
            self._committing = frozenset()

    async def put_away(self, epochs: Mapping[str, int]) -> None:
        self._target.misused += [
            f"{conv} is put away while a commit to it is under way"
            for conv in sorted(epochs.keys() & self._committing)
        ]
        wanted = dict(epochs)
        await self._call("put_away", lambda: self._target.put_away(wanted))

    async def left_open(self, slots: Collection[int]) -> list[str]:
        wanted = frozenset(slots)
        return await self._call("left_open", lambda: self._target.left_open(wanted))

    async def load(
        self, convs: Sequence[str], tail: int, epochs: Mapping[str, int] | None = None
    ) -> dict[str, Loaded]:
        store, wanted = self._target, list(convs)
        if epochs is None:
            return await self._call("load", lambda: store.load(wanted, tail))
        under = dict(epochs)
        begun = store.begin(sorted(under))
        return await self._call("load", lambda: store.land_load(wanted, tail, under, begun))
