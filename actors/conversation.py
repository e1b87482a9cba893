"""The one writer of a conversation's log: its mailbox, its turns, its failures, its end.

An actor whose turns are run by the pump (`actors.turn`): it takes everything in its mailbox,
decides synchronously by the rules that the commands bring with them (`broker.commands`), and when
the turn's commit is durable, acknowledges and fans out. This file is the engine; it knows no rule
of who may do what. Entries are visible to nobody before they are durable. Crash policy: its state
is loaded from the store again after any failure; who may have missed something is `behind`.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from actors.faults import SENT_ELSEWHERE, defect, error_reply, unavailable
from actors.images import Drafts
from actors.ledger import Effect, NeedEntries
from actors.mailbox import MailboxStatistics
from actors.queries import Item, Queries, Rule
from broker.wire.errors import Refusal
from broker.wire.replies import Sent
from storage.errors import Unavailable
from storage.records import Commit, Group, Loaded

if TYPE_CHECKING:
    from actors.cluster.follower import Follower
    from actors.connection import Connection
    from actors.node import Node
    from actors.outbox import Outbox


class ConversationStatistics(Struct, frozen=True):
    name: str
    head: int
    members: int
    subscribers: int
    waiting: int
    mailbox: MailboxStatistics


class Conversation(Queries):
    """The actor; `Ledger` is its state and what its rules call."""

    __slots__ = (
        "_blocked",
        "_fresh",
        "_loaded",
        "_loading",
        "ended",
        "used_at",
    )

    def __init__(self, node: Node, name: str) -> None:
        super().__init__(node, name)
        self.ended = False
        self.used_at = node.now()
        self._blocked: deque[Item] = deque()
        self._loaded = False
        self._loading = self._fresh = True

    # Mailbox

    @property
    def loaded(self) -> bool:
        """Whether it knows its state; not while that comes from the store."""
        return self._loaded

    @property
    def settled(self) -> bool:
        """Whether nobody can miss anything for its being forgotten now.

        After a turn in doubt, or the death of its last writer: when it is loaded.
        """
        if self._loaded:
            return True
        if not self._fresh or len(self.subscribers):
            return False
        cluster = self.node.cluster
        return cluster is None or self.name not in cluster.doubtful

    def post(self, connection: Connection, command: Any, rule: Rule) -> bool:
        """Put a command in the mailbox; False if it is full, or others wait for room already."""
        items = self._mailbox.items
        if len(items) >= self._mailbox.limit or self._blocked:
            self._mailbox.refused += 1
            return False
        items.append((connection, command, rule))
        if not self._queued:
            self.wake()
        return True

    def block(self, connection: Connection, command: Any, rule: Rule) -> None:
        """Keep a refused connection's command until there is room; it must send no more."""
        self._blocked.append((connection, command, rule))

    def wake(self) -> None:
        if self.abandoned:
            self._send_on()
        elif self._loaded:
            self._queued = True
            self.node.turn.ready(self)
        elif not self._loading:
            self._loading = True
            self.node.turn.load(self)

    def _unblock(self) -> None:
        while self._blocked and self._mailbox.put(self._blocked[0]):
            connection, _, _ = self._blocked.popleft()
            if not self._queued:
                self.wake()
            connection.unblock()

    # Taking up

    def take_up(self, loaded: Loaded) -> None:
        """Begin, or begin again, with the state from the store."""
        self._loading, self._loaded = False, True
        self.used_at = self.node.now()
        self.doubt = self.doubt or loaded.doubt
        registry, cluster = self.node.registry, self.node.cluster
        told = loaded.head.seq if self._fresh else self.head
        told, follower, known = self._inherit() or (told, None, frozenset())
        for user in self.members:
            registry.lost_interest(user, self)
        self._remember(loaded)
        self._fresh = False
        self.subscribers.let_out(self.members, told)
        if told < self.head:
            self._catch_up(self.head - told, loaded.tail)
        for user, member in self.members.items():
            registry.interested(user, self)
            missed = member.since > told  # their coming was stored, but not told
            late = cluster is not None and cluster.here.late(user)
            for connection in registry.connections_of(user):
                self.subscribe(connection)
                if (missed or (late and connection not in known)) and not connection.closing:
                    connection.fall_behind(self)
            for peer in registry.peers_of(user):
                self.subscribers.add_peer(peer, user, doubt=missed)
        if self.doubt:
            self.subscribers.fall_behind_here(besides=known)
        self.doubt = False
        if cluster is not None:
            cluster.doubtful.discard(self.name)
        if follower is not None:
            follower.hand_on(self)
        self._unblock()
        if len(self._mailbox) and not self._queued:
            self.wake()

    def _inherit(self) -> tuple[int, Follower, frozenset[Outbox]] | None:
        """Up to where connections here were told of it while it was another node's, by whom, and
        which; from now on they are told by this actor."""
        cluster = self.node.cluster
        if cluster is None or (follower := cluster.following.inherit(self.name)) is None:
            return None
        known = frozenset(follower.subscribers)
        for outbox in known:
            self.subscribers.add(outbox)
        return follower.head, follower, known

    def _catch_up(self, missed: int, tail: list[bytes]) -> None:
        """Deliver the newest entries, stored but not told; `behind` where it is too much."""
        if missed > len(tail):
            self.subscribers.fall_behind()
        else:
            self.subscribers.tell_stored(tail[-missed:])

    def load_failed(self, refusal: Refusal, *, for_good: bool = False) -> None:
        """Answer everybody who waits; the next command tries again, or (not if `for_good`, where it
        would only fail again) the sweeper."""
        self._loading = self._loaded = False
        if self.abandoned:
            self._send_on()
            return
        for connection, command, _ in self._mailbox.take():
            connection.refuse(command.id, refusal)
        self._unblock()
        if len(self._mailbox):
            self.wake()
        elif for_good or (self.settled and not self._waiting):
            self.subscribers.fall_behind()
            self.end()
        else:
            self.node.turn.load_later(self)  # somebody may have missed something

    def begin(self, group: Group) -> None:
        """Start a conversation that is not in the store yet; its first entry comes with it."""
        self._fresh = self._loading = False
        self._loaded = True
        if self.node.cluster is not None:
            self.epoch = self.node.cluster.placement.epoch_of(self.slot)
        self.group = group
        self.stage_group(group)

    # Deciding: what rules call

    def decide(self, commit: Commit) -> None:
        """Take everything in the mailbox, and add what it changes to the turn's commit."""
        self._queued = False
        self.used_at = self.node.turn.now
        if self.abandoned:
            self._send_on()
            return
        if not self._loaded:
            return  # its last turn failed: the mailbox waits for the state to be loaded again
        waiting = self._waiting
        items = iter(self._mailbox.take())
        for item in items:
            connection, command, rule = item
            if waiting and connection in waiting:
                waiting[connection].append(item)
                continue
            try:
                rule(self, connection, command)
            except Refusal as refusal:
                self._answers.append((connection, command.id, refusal))
            except NeedEntries as need:
                self._fetch(connection, command, rule, need.seqs)
            except Exception:
                # For `crash`: this command is answered, those behind it are not lost.
                self._answers.append((connection, command.id, None))
                self._mailbox.put_back(list(items))
                raise
        self._stage_into(commit)
        self._unblock()

    # Applying: the turn is durable

    def apply(self) -> None:
        """Acknowledge and fan out what this turn decided."""
        if self.abandoned:
            self._give_up(SENT_ELSEWHERE)
            return
        if not self._loaded:
            return
        answers, drafts, effects, revised = (
            self._answers,
            self._drafts,
            self._effects,
            self._revised,
        )
        self._clear()
        self.used_at = self.node.turn.now
        if drafts is not None:
            self.head += len(drafts.payloads)
            self.node.counters.appended += len(drafts.payloads)
            self.recent.extend(drafts)
        if revised:
            for seq, payload in revised.items():
                self.recent.revise(seq, payload)
        self._reply(answers)
        if effects:
            self._apply_in_order(drafts or Drafts(), effects)
        elif drafts is not None:
            self.subscribers.fan_out(drafts)
        self.told = self.head
        self._unblock()
        if not self.members and not self._waiting:
            self.end()  # never there, or dissolved

    def _reply(self, answers: list[tuple[Connection, int, object]]) -> None:
        """Answers in order; those that follow each other on one connection are written at once."""
        if len(answers) == 1:
            connection, command_id, reply = answers[0]
            if type(reply) is Sent:
                connection.answer(reply)
                return
        last: Connection | None = None
        replies: list[object] = []
        for connection, command_id, reply in answers:
            if connection is not last:
                if last is not None:
                    last.answer_all(replies)
                    replies = []
                last = connection
            if type(reply) is partial:
                connection.answer_all(replies)
                replies = []
                self._call(connection, command_id, reply)
            elif type(reply) is Refusal:
                replies.append(error_reply(command_id, reply))
            else:
                replies.append(reply)
        if last is not None:
            last.answer_all(replies)

    def _call(self, connection: Connection, command_id: int, reply: Effect) -> None:
        """Make a reply; if that fails, it is this command's failure alone: the turn is durable."""
        try:
            reply()
        except Exception:  # noqa: BLE001 - the supervisor
            self.node.counters.crashes += 1
            connection.refuse(command_id, defect(f"a reply of conversation {self.name}"))

    def _apply_in_order(self, drafts: Drafts, effects: list[tuple[int, Effect]]) -> None:
        """Effects stand between entries: who joins sees the entries after, who leaves, before."""
        start = 0
        before = self.head - len(drafts.payloads)
        for index, effect in effects:
            if index > start:
                self.subscribers.fan_out(drafts.part(start, index))
                # Senders and few are written to at once, the others in the flush.
                self.node.flusher.settle()
                start = index
            self.told = before + index
            effect()
        count = len(drafts.payloads)
        if start < count:
            self.subscribers.fan_out(drafts.part(start, count))

    # Failing and ending

    def fail(self, error: Unavailable) -> None:
        """The commit did not succeed: nothing was acknowledged; load again before going on."""
        self._give_up(unavailable(error))

    def crash(self, refusal: Refusal) -> None:
        """A defect: whoever may have missed something is behind; load again."""
        self.subscribers.fall_behind()
        self._give_up(refusal)

    def _give_up(self, refusal: Refusal) -> None:
        answers = self._answers
        self._let_go_in_doubt()
        self._clear()
        self._loaded = False
        for connection, command_id, reply in answers:
            connection.refuse(command_id, reply if type(reply) is Refusal else refusal)
            if type(reply) is partial and reply.func == self._start_query:
                self._stop_waiting(connection)
        if self.abandoned:
            self._send_on()
        elif not self._loading:
            self._loading = True
            self.node.turn.load(self)

    # Another node's

    def quiet(self) -> bool:
        """Nothing is under way."""
        return (
            not self._queued
            and not self._loading
            and not len(self._mailbox)
            and not self._waiting
            and not self._blocked
            and not self._answers
            and self._drafts is None
        )

    def hand_over(self) -> None:
        """It is settled, and all were told: another node writes it from now on."""
        self.subscribers.close_peers(tell=True)
        self.abandon()

    def abandon(self) -> None:
        """Another node may write it now. What is acknowledged is stored; what was not looked at is
        sent there; what a commit is under way with, is answered as in doubt, and before that."""
        if self.abandoned:
            return
        cluster = self.node.cluster
        assert cluster is not None
        self.ended = self.abandoned = True
        self.subscribers.close_peers(tell=False)
        self._loaded = False
        cluster.following.follow_on(self)
        self.node.registry.forget(self)
        with cluster.said_later(self.name):
            self._give_up(SENT_ELSEWHERE)

    def _send_on(self) -> None:
        """Commands that were not looked at go to where the conversation is now."""
        for connection, command, _ in self._mailbox.take():
            connection.dispatch_again(command)
        while self._blocked:
            connection, command, _ = self._blocked.popleft()
            connection.dispatch_again(command)
            connection.unblock()

    def end(self) -> None:
        """Stop being active (idle, dissolved, or never there)."""
        self.ended = True
        self.subscribers.close_peers(tell=True)
        if self.epoch and self._loaded and self.node.cluster is not None:
            self.node.cluster.put_away(self)
        self.node.registry.forget(self)

    def statistics(self) -> ConversationStatistics:
        return ConversationStatistics(
            self.name,
            self.head,
            len(self.members),
            len(self.subscribers),
            len(self._waiting),
            self._mailbox.statistics(),
        )
