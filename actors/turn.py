"""The pump: one turn takes all ready conversations through one group commit.

A turn lets each ready conversation decide (plain calls), makes what they all changed durable in one
commit, lets each apply (acknowledge, fan out), and flushes. While a commit is under way, the next
turn's work gathers: batching comes from load, not from timers. A second task takes up conversations
from the store, as many at once as were asked for meanwhile. Crash policy: a conversation that fails
answers its commands, forgets its state and is loaded anew; the turn goes on with the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from actors.faults import SENT_ELSEWHERE, defect, log_outage, unavailable
from actors.parking import Parking
from broker.wire.limits import KEY_WINDOW_ENTRIES
from storage.errors import Unavailable
from storage.records import Commit, Loaded

if TYPE_CHECKING:
    from actors.conversation import Conversation
    from actors.node import Node

LOADS_AT_ONCE = 16
"""Conversations taken up with one look into the store."""

FENCED = Unavailable("this node has lost its lease", applied=None)


class TurnStatistics(Struct, frozen=True):
    turns: int
    ready: int
    loading: int
    conversations_last_turn: int
    commit_ms_last: float


class Turn:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._ready: list[Conversation] = []
        self._work = Parking()
        self._loads: list[Conversation] = []
        self._later: list[Conversation] = []
        self._loading = Parking()
        self._turns = 0
        self._last_size = 0
        self._last_commit_s = 0.0
        self.busy = False
        self.taking_up = 0
        self.now_ms = node.now_ms()
        """The wall clock, read once a turn: milliseconds since 1970."""
        self.now = node.now()
        """The node's clock, read before a turn decides and before it applies."""

    def ready(self, conversation: Conversation) -> None:
        """A conversation has new work. Called once until its next `decide`."""
        self._ready.append(conversation)
        self._work.unpark()

    def load(self, conversation: Conversation) -> None:
        """A conversation needs its state from the store."""
        self._loads.append(conversation)
        self._loading.unpark()

    def load_later(self, conversation: Conversation) -> None:
        """Its state could not be had, and nobody waits for it: not at once again."""
        self._later.append(conversation)

    def load_again(self) -> None:
        """It is later."""
        later, self._later = self._later, []
        for conversation in later:
            if not conversation.ended and not conversation.loaded:
                conversation.wake()

    def wake(self) -> None:
        """Something was fanned out outside a turn: have it flushed."""
        self._work.unpark()

    def idle(self) -> bool:
        """Nothing is ready, under way or being loaded."""
        return not (self._ready or self._loads or self.busy)

    async def run(self) -> None:
        flusher = self._node.flusher
        cluster = self._node.cluster
        while True:
            if not self._ready:
                self.busy = False
                await self._work.park()
            self.busy = True
            decided = await self._decide_and_commit()
            if cluster is None:
                self._apply(decided)
                await flusher.flush_turn()
            else:
                async with cluster.delivery:
                    self._apply(decided)
                    await flusher.flush_turn()
            # The reader's turn: what came in while we flushed belongs to the next batch.
            await trio.lowlevel.checkpoint()

    async def run_once(self) -> None:
        """A turn of all that is ready; the flush is the caller's."""
        self._apply(await self._decide_and_commit())

    async def _decide_and_commit(self) -> list[Conversation]:
        """Those whose turn is durable."""
        deciding, self._ready = self._ready, []
        if not deciding:
            return []
        node = self._node
        self.now_ms = node.now_ms()
        self.now = node.now()
        commit = Commit()
        ready = []
        for conversation in deciding:
            try:
                conversation.decide(commit)
            except Exception:  # noqa: BLE001 - the supervisor
                conversation.crash(defect(f"conversation {conversation.name}"))
            else:
                ready.append(conversation)
        if commit:
            started = node.now()
            try:
                await node.store.commit(commit)
            except Unavailable as error:
                node.counters.store_failures += 1
                log_outage(error)
                for conversation in ready:
                    conversation.fail(error)
                return []
            except Exception:  # noqa: BLE001 - the supervisor
                refusal = defect("group commit")
                for conversation in ready:
                    conversation.crash(refusal)
                return []
            node.counters.commits += 1
            self._last_commit_s = node.now() - started
        if node.cluster is not None and not node.cluster.placement.good():
            # Another may have taken over before this was stored: then it is void.
            for conversation in ready:
                conversation.fail(FENCED)
            return []
        return ready

    def _apply(self, ready: list[Conversation]) -> None:
        if not ready:
            return
        self.now = self._node.now()
        for conversation in ready:
            try:
                conversation.apply()
            except Exception:  # noqa: BLE001 - the supervisor
                conversation.crash(defect(f"conversation {conversation.name}"))
        self._turns += 1
        self._last_size = len(ready)

    async def run_loader(self) -> None:
        node = self._node
        while True:
            if not self._loads:
                await self._loading.park()
            wanted, self._loads = self._loads[:LOADS_AT_ONCE], self._loads[LOADS_AT_ONCE:]
            epochs = self._epochs(wanted)
            wanted = [conversation for conversation in wanted if not conversation.abandoned]
            names = [conversation.name for conversation in wanted]
            self.taking_up = len(names)
            try:
                loaded = await node.store.load(names, KEY_WINDOW_ENTRIES, epochs)
            except Unavailable as error:
                node.counters.store_failures += 1
                log_outage(error)
                for conversation in wanted:
                    conversation.load_failed(unavailable(error))
            else:
                await self._take_all_up(wanted, loaded)
            self.taking_up = 0
            self.wake()

    async def _take_all_up(self, wanted: list[Conversation], loaded: dict[str, Loaded]) -> None:
        cluster = self._node.cluster
        if cluster is None:
            for conversation in wanted:
                self._take_up(conversation, loaded)
            return
        # What a follower is telling at this moment comes before what the conversation tells.
        async with cluster.delivery:
            for conversation in wanted:
                if cluster.placement.good():
                    self._take_up(conversation, loaded)
                else:
                    # Another may have taken it up since, and written to it.
                    conversation.load_failed(unavailable(FENCED))
            await self._node.flusher.flush_turn()

    def _epochs(self, wanted: list[Conversation]) -> dict[str, int] | None:
        """Under which epoch each is taken up; what is another node's by now is let go of."""
        cluster = self._node.cluster
        if cluster is None:
            return None
        epochs = {}
        for conversation in wanted:
            conversation.epoch = cluster.placement.owned.get(conversation.slot, 0)
            if conversation.epoch:
                conversation.doubt = conversation.doubt or conversation.name in cluster.doubtful
                epochs[conversation.name] = conversation.epoch
            elif not conversation.abandoned:
                conversation.abandon()
        return epochs

    def _take_up(self, conversation: Conversation, loaded: dict[str, Loaded]) -> None:
        if conversation.abandoned:
            conversation.load_failed(SENT_ELSEWHERE)
            return
        try:
            conversation.take_up(loaded[conversation.name])
        except Exception:  # noqa: BLE001 - the supervisor
            self._node.counters.crashes += 1
            refusal = defect(f"taking up conversation {conversation.name}")
            conversation.load_failed(refusal, for_good=True)

    @property
    def loads_waiting(self) -> int:
        """Conversations that wait to be taken up, or are being taken up."""
        return len(self._loads) + self.taking_up

    def statistics(self) -> TurnStatistics:
        return TurnStatistics(
            self._turns,
            len(self._ready),
            len(self._loads),
            self._last_size,
            round(self._last_commit_s * 1000, 3),
        )
