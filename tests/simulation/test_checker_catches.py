"""A checker that never complains proves nothing: each of these broken builds is found out.

A safeguard is taken out of the broker, and seeds are played until one of them fails, within bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio

from actors.cluster.here import Here
from actors.cluster.link import Heard, Link
from actors.cluster.placement import Placement
from actors.conversation import Conversation
from actors.memory import KeyWindow
from actors.turn import Turn
from storage.errors import Unavailable
from storage.records import Commit
from tests.simulation.plans import RESTLESS
from tests.simulation.store import SharedStore
from tests.simulation.world import Plan, simulate

SEEDS_MAX = 25

DEATHS = Plan(faults=("pause", "cut_off", "leases_fail", "pause"), mean_between_s=2.0)
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


def no_epochs(patch: pytest.MonkeyPatch) -> None:
    """What a former owner wrote becomes part of the log whenever it lands."""

    async def land(self: SharedStore, commit: Commit, begun: dict[str, int]) -> None:
        await self.commit(Commit(**{**commit_fields(commit), "epochs": {}}))

    patch.setattr(SharedStore, "land", land)


def no_gaps(patch: pytest.MonkeyPatch) -> None:
    """A link takes what comes for all there was."""

    def hear(self: Link, envelope: Any, now: float) -> Heard:
        self._take_confirmation(envelope, now)
        begins = envelope.session != self.heard_session
        self.heard_session, self.heard = envelope.session, envelope.number
        return Heard(envelope.words, begins=begins)

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
            node.store = _Later(store, kept)  # type: ignore[assignment]
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


def commit_fields(commit: Commit) -> dict[str, Any]:
    return {name: getattr(commit, name) for name in commit.__struct_fields__}


@pytest.mark.parametrize(
    ("broken", "plan"),
    [
        (no_fencing, DEATHS),
        (no_epochs, DEATHS),
        (no_gaps, LOSSES),
        (no_keys, CRASHES),
        (no_waiting, CRASHES),
        (no_catching_up, CRASHES),
        (no_lateness, STANDSTILLS),
    ],
)
def test_a_broken_build_is_found_out(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None], plan: Plan
) -> None:
    broken(monkeypatch)
    for seed in range(SEEDS_MAX):
        if wrong := simulate(seed, plan).wrong:
            print(f"{broken.__name__}: seed {seed}: {wrong[0]}")
            return
    pytest.fail(f"{SEEDS_MAX} seeds, and nobody noticed")
