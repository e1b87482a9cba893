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

from actors.faults import defect, log_outage, unavailable
from actors.parking import Parking
from broker.wire.limits import KEY_WINDOW_ENTRIES
from storage.errors import Unavailable
from storage.records import Commit, Loaded

if TYPE_CHECKING:
    from actors.conversation import Conversation
    from actors.node import Node

LOADS_AT_ONCE = 16
"""Conversations taken up with one look into the store."""


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
        self._loading = Parking()
        self._turns = 0
        self._last_size = 0
        self._last_commit_s = 0.0
        self.busy = False
        self.now_ms = node.now_ms()
        """The wall clock, read once a turn: milliseconds since 1970."""
        self.now = node.now()
        """The node's clock, likewise."""

    def ready(self, conversation: Conversation) -> None:
        """A conversation has new work. Called once until its next `decide`."""
        self._ready.append(conversation)
        self._work.unpark()

    def load(self, conversation: Conversation) -> None:
        """A conversation needs its state from the store."""
        self._loads.append(conversation)
        self._loading.unpark()

    def wake(self) -> None:
        """Something was fanned out outside a turn: have it flushed."""
        self._work.unpark()

    def idle(self) -> bool:
        """Nothing is ready, under way or being loaded."""
        return not (self._ready or self._loads or self.busy)

    async def run(self) -> None:
        flusher = self._node.flusher
        while True:
            if not self._ready:
                self.busy = False
                await self._work.park()
            self.busy = True
            await self.run_once()
            await flusher.flush_turn()
            # The reader's turn: what came in while we flushed belongs to the next batch.
            await trio.lowlevel.checkpoint()

    async def run_once(self) -> None:
        """A turn of all that is ready; the flush is the caller's."""
        ready, self._ready = self._ready, []
        if ready:
            await self._turn(ready)

    async def _turn(self, ready: list[Conversation]) -> None:
        node = self._node
        self.now_ms = node.now_ms()
        self.now = node.now()
        commit = Commit()
        deciding = ready
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
                return
            except Exception:  # noqa: BLE001 - the supervisor
                refusal = defect("group commit")
                for conversation in ready:
                    conversation.crash(refusal)
                return
            node.counters.commits += 1
            self._last_commit_s = node.now() - started
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
            names = [conversation.name for conversation in wanted]
            try:
                loaded = await node.store.load(names, KEY_WINDOW_ENTRIES)
            except Unavailable as error:
                node.counters.store_failures += 1
                log_outage(error)
                for conversation in wanted:
                    conversation.load_failed(unavailable(error))
            else:
                for conversation in wanted:
                    self._take_up(conversation, loaded)
            self.wake()

    def _take_up(self, conversation: Conversation, loaded: dict[str, Loaded]) -> None:
        try:
            conversation.take_up(loaded[conversation.name])
        except Exception:  # noqa: BLE001 - the supervisor
            self._node.counters.crashes += 1
            # Not loaded again at once: what is stored would only fail in the same way.
            conversation.load_failed(defect(f"taking up conversation {conversation.name}"))

    def statistics(self) -> TurnStatistics:
        return TurnStatistics(
            self._turns,
            len(self._ready),
            len(self._loads),
            self._last_size,
            round(self._last_commit_s * 1000, 3),
        )
