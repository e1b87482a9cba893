"""A checker that never complains proves nothing: each of these broken builds is found out.

A safeguard is taken out of the broker, or of the store that it relies on, and seeds are played
until one of them has the very harm that the safeguard prevents. Without that, the seed is clean.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio

from actors.cluster import placement
from actors.cluster.here import Here
from actors.cluster.link import Heard, Link
from actors.cluster.placement import Placement
from actors.cluster.words import Envelope
from actors.conversation import Conversation
from actors.ledger import Ledger
from actors.memory import KeyWindow
from actors.turn import Turn
from storage.errors import Unavailable
from storage.records import Commit
from tests.simulation.plans import RESTLESS
from tests.simulation.store import SharedStore
from tests.simulation.world import Plan, simulate

SEEDS_MAX = 40

DEATHS = Plan(faults=("pause", "cut_off", "leases_fail", "pause"), mean_between_s=2.0)
PAUSES = Plan(faults=("pause", "store_is_slow"), mean_between_s=1.0)
LOSSES = Plan(faults=("bus_loses", "bus_is_away", "bus_is_cut"), mean_between_s=2.0)
CRASHES = Plan(faults=("kill", "store_fails", "cut_off"), mean_between_s=2.0)

STANDSTILLS = Plan(
    nodes=2,
    users=8,
    second_devices=0,
    faulty_s=60.0,
    habits=RESTLESS,
    faults=("bus_stands_still",),
    mean_between_s=4.0,
)


def no_fencing(patch: pytest.MonkeyPatch) -> None:
    """A node acknowledges what it has written without asking whether its lease is good."""
    patch.setattr(Placement, "good", lambda self: True)


def no_margin(patch: pytest.MonkeyPatch) -> None:
    """A node believes in its lease for longer than others wait for it."""
    patch.setattr(placement, "MARGIN_SHARE", -1)


def no_epochs(patch: pytest.MonkeyPatch) -> None:
    """What a former owner wrote lands whenever it does, over what the next one has written."""
    intact = SharedStore.land

    async def land(self: SharedStore, commit: Commit, begun: dict[str, int]) -> None:
        for append in commit.appends:
            if commit.epochs.get(append.conv, 0) < self._epoch(append.conv):
                log = self._conversation(append.conv).payloads
                log[append.first - 1 : append.last] = append.payloads[: len(log) - append.first + 1]
        await intact(self, commit, begun)

    patch.setattr(SharedStore, "land", land)


def only_entries(patch: pytest.MonkeyPatch) -> None:
    """A commit has what is new in the log, and nothing of what has changed."""
    intact = Ledger._stage_into

    def stage_into(self: Ledger, commit: Commit) -> None:
        whole = Commit()
        intact(self, whole)
        commit.appends += whole.appends
        commit.epochs.update(whole.epochs)

    patch.setattr(Ledger, "_stage_into", stage_into)


def no_gaps(patch: pytest.MonkeyPatch) -> None:
    """A link takes what comes for all there was."""

    intact = Link.hear

    def hear(self: Link, envelope: Envelope, now: float) -> Heard:
        if envelope.session == self.heard_session or envelope.number != 1:
            self.heard_session, self.heard = envelope.session, envelope.number - 1
        return intact(self, envelope, now)

    patch.setattr(Link, "hear", hear)


def no_keys(patch: pytest.MonkeyPatch) -> None:
    """Who takes over a conversation does not look which keys its entries have."""
    patch.setattr(KeyWindow, "recall", lambda self, entry: None)


def no_waiting(patch: pytest.MonkeyPatch) -> None:
    """Acknowledged, and then committed."""
    decide = Turn._decide_and_commit

    async def run(self: Turn) -> None:
        node = self._node
        while True:
            if not self._ready:
                self.busy = False
                await self._work.park()
            self.busy = True
            commit, store = Commit(), node.store
            kept: list[Commit] = []
            node.store = _Later(store, kept)
            try:
                decided = await decide(self)
            finally:
                node.store = store
            self._apply(decided)
            await node.flusher.flush_turn()
            for commit in kept:
                with suppress(Unavailable):
                    await store.commit(commit)
            await trio.lowlevel.checkpoint()

    patch.setattr(Turn, "run", run)


class _Later:
    def __init__(self, store: Any, kept: list[Commit]) -> None:
        self._store = store
        self._kept = kept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, commit: Commit) -> None:
        self._kept.append(commit)


def no_catching_up(patch: pytest.MonkeyPatch) -> None:
    """What a commit of unknown outcome has stored after all is told to nobody."""
    patch.setattr(Conversation, "_catch_up", lambda self, missed, tail: None)


def no_lateness(patch: pytest.MonkeyPatch) -> None:
    """Who came while the bus stood still is told by others as if they had known of it."""
    patch.setattr(Here, "late", lambda self, user: False)


FENCED = r": \d+ was acknowledged (before it was stored|under epoch \d+, and epoch \d+ has begun)"
LOST = r"acknowledged .* and is not in the log|: \d+ was acknowledged before it was stored"
BUILDS = (
    (no_fencing, PAUSES, FENCED),
    (no_margin, PAUSES, "was acknowledged by a node that was removed"),
    (no_epochs, DEATHS, r"acknowledged as entry \d+, and is not in the log"),
    (only_entries, CRASHES, r"the (new state|coming or going|mark) of \d+ was acknowledged before"),
    (no_gaps, LOSSES, r"was never told of|was answered before|: a hole: "),
    (no_keys, CRASHES, r"the key .* is stored twice"),
    (no_waiting, CRASHES, LOST),
    (no_catching_up, CRASHES, r"was never told of|: a hole: "),
    (no_lateness, STANDSTILLS, r"was never told of|: a hole: "),
)


@pytest.mark.parametrize(
    ("broken", "plan", "harm"), BUILDS, ids=[broken.__name__ for broken, _, _ in BUILDS]
)
def test_a_broken_build_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[[pytest.MonkeyPatch], None],
    plan: Plan,
    harm: str,
) -> None:
    with monkeypatch.context() as patch:
        broken(patch)
        seed, wrong = first_with(harm, plan)
    print(f"{broken.__name__}: seed {seed}: {wrong}")
    assert not simulate(seed, plan).wrong, "it is not for its being broken"


def first_with(harm: str, plan: Plan) -> tuple[int, str]:
    """The first seed with such a violation, and that."""
    seen: list[str] = []
    for seed in range(SEEDS_MAX):
        wrong = simulate(seed, plan).wrong
        for what in wrong:
            if re.search(harm, what):
                return seed, what
            assert "ended by itself" not in what, "the patch does not fit the code"
        seen += wrong[:1]
    pytest.fail(f"{SEEDS_MAX} seeds, and nobody noticed; but this: {seen}")
