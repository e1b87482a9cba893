"""The one writer of a conversation's log: membership, sequence, keys, fan-out.

An actor whose turns are run by the pump (`actors.turn`): it takes everything in its mailbox,
decides synchronously by the rules that the commands bring with them (`broker.commands`), and when
the turn's commit is durable, acknowledges and fans out. This file is the engine; it knows no rule
of who may do what. Entries are visible to nobody before they are durable. Crash policy: everything
in memory can be loaded from the store again, and is, after any failure; members who might have
missed something are told that they are behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from actors.faults import error_reply, unavailable
from actors.images import (
    Batch,
    Draft,
    conversation_prefix,
    key_bytes,
    pair_of_images,
)
from actors.mailbox import Mailbox, MailboxStatistics
from actors.memory import KeyWindow, Recent, draft_of
from actors.wires import WIRES, Wire
from broker.wire.codec import JSON
from broker.wire.errors import Refusal
from broker.wire.replies import Sent
from storage.errors import Unavailable
from storage.records import (
    MESSAGE_KINDS,
    Append,
    Commit,
    Entry,
    Group,
    Loaded,
    Mark,
    Member,
    Revision,
    decode_entry,
    encode_entry,
)

if TYPE_CHECKING:
    from actors.connection import Connection
    from actors.node import Node
    from actors.outbox import Outbox

Rule = Callable[["Conversation", "Connection", Any], None]
"""Decides one command by plain calls on the conversation; raises `Refusal` or `NeedEntries`."""

Query = Callable[["Conversation", "Connection", Any], Awaitable[None]]
"""Answers one command after reading from the store; decides nothing."""

FEW = 4
"""Up to this many subscribers of a wire are looked at one by one for being senders."""


class NeedEntries(Exception):
    """A rule cannot decide before these older entries are fetched from the store."""

    def __init__(self, seqs: Sequence[int]) -> None:
        super().__init__(seqs)
        self.seqs = seqs


class ConversationStatistics(Struct, frozen=True):
    name: str
    head: int
    members: int
    subscribers: int
    waiting: int
    mailbox: MailboxStatistics


class Conversation:
    """`head` is the newest entry that readers may know of."""

    __slots__ = (
        "_answers",
        "_blocked",
        "_drafts",
        "_effects",
        "_loaded",
        "_loading",
        "_mailbox",
        "_prefix",
        "_queued",
        "_revised",
        "_staged",
        "_subscribers",
        "_waiting",
        "ended",
        "group",
        "head",
        "keys",
        "marks",
        "members",
        "name",
        "node",
        "recent",
        "ts",
        "used_at",
    )

    def __init__(self, node: Node, name: str) -> None:
        self.node = node
        self.name = name
        self.head = 0
        self.ts = 0
        self.group: Group | None = None
        self.members: dict[int, Member] = {}
        self.marks: dict[int, Mark] = {}
        self.keys = KeyWindow()
        self.recent = Recent(0)
        self.ended = False
        self.used_at = node.now()
        self._prefix = conversation_prefix(name)
        self._mailbox: Mailbox[tuple[Connection, Any, Rule]] = Mailbox(
            node.options.mailbox_commands
        )
        self._blocked: deque[tuple[Connection, Any, Rule]] = deque()
        self._waiting: dict[Connection, deque[tuple[Connection, Any, Rule]]] = {}
        self._subscribers: tuple[tuple[Wire, dict[Outbox, None]], ...] = tuple(
            [(wire, {}) for wire in WIRES]
        )
        self._queued = False
        self._loaded = False
        self._loading = True
        self._clear()

    def _clear(self) -> None:
        """Forget what this turn has decided."""
        self._answers: list[tuple[Connection, int, object]] = []
        self._drafts: list[Draft] = []
        self._effects: list[tuple[int, Callable[[], None]]] | None = None
        self._revised: dict[int, bytes] | None = None
        self._staged: Commit | None = None

    # Mailbox

    @property
    def loaded(self) -> bool:
        """Whether it knows its state; not while that comes from the store."""
        return self._loaded

    def post(self, connection: Connection, command: Any, rule: Rule) -> bool:
        """Put a command in the mailbox; False if it is full."""
        items = self._mailbox.items
        if len(items) >= self._mailbox.limit:
            self._mailbox.refused += 1
            return False
        items.append((connection, command, rule))
        if not self._queued:
            self._wake()
        return True

    def block(self, connection: Connection, command: Any, rule: Rule) -> None:
        """Keep a refused connection's command until there is room; it must send no more."""
        self._blocked.append((connection, command, rule))

    def _wake(self) -> None:
        if self._loaded:
            self._queued = True
            self.node.turn.ready(self)
        elif not self._loading:
            self._loading = True
            self.node.turn.load(self)

    def _unblock(self) -> None:
        while self._blocked and self._mailbox.put(self._blocked[0]):
            connection, _, _ = self._blocked.popleft()
            connection.unblock()

    # Taking up

    def take_up(self, loaded: Loaded) -> None:
        """Begin, or begin again, with the state from the store."""
        self._loading = False
        self._loaded = True
        told = self.head if self._has_subscribers() else loaded.head.seq
        self.head = loaded.head.seq
        self._remember(loaded)
        if told < self.head:
            self._catch_up(self.head - told, loaded.tail)
        for user in self.members:
            self.node.registry.interested(user, self)
            for connection in self.node.registry.connections_of(user):
                self.subscribe(connection)
        if len(self._mailbox):
            self._wake()

    def _remember(self, loaded: Loaded) -> None:
        for user in self.members:
            self.node.registry.lost_interest(user, self)
        self.ts = loaded.head.ts
        self.group = loaded.group
        self.members = (
            {} if loaded.missing_users else {member.user: member for member in loaded.members}
        )
        self.marks = {mark.user: mark for mark in loaded.marks}
        self.keys = KeyWindow()
        self.recent = Recent(loaded.head.seq - len(loaded.tail))
        drafts: list[Draft] = []
        for payload in loaded.tail:
            entry = decode_entry(payload)
            self.keys.recall(entry)
            drafts.append(draft_of(entry, payload))
        self.recent.extend(drafts)

    def _catch_up(self, missed: int, tail: list[bytes]) -> None:
        """Deliver the newest entries, stored but not told; `behind` where it is too much."""
        if missed > len(tail):
            self._all_behind()
            return
        self._fan_out([draft_of(decode_entry(payload), payload) for payload in tail[-missed:]])

    def load_failed(self, error: Unavailable) -> None:
        """Answer everybody who waits; the next command tries again."""
        self._loading = False
        refusal = unavailable(error)
        for connection, command, _ in self._mailbox.take():
            connection.refuse(command.id, refusal)
        self._unblock()
        if not self._has_subscribers() and not self._waiting and not len(self._mailbox):
            self.end()
        elif len(self._mailbox):
            self._wake()

    def begin(self, group: Group) -> None:
        """Start a conversation that is not in the store yet; its first entry comes with it."""
        self._loading = False
        self._loaded = True
        self.group = group
        self.stage_group(group)

    # Deciding: what rules call

    def decide(self, commit: Commit) -> None:
        """Take everything in the mailbox, and add what it changes to the turn's commit."""
        self._queued = False
        self.used_at = self.node.now()
        if not self._loaded:
            return  # its last turn failed: the mailbox waits for the state to be loaded again
        waiting = self._waiting
        for item in self._mailbox.take():
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
        drafts = self._drafts
        if drafts:
            payloads = [draft[0] for draft in drafts]
            commit.appends.append(Append(self.name, self.head + 1, payloads, self.ts))
        staged = self._staged
        if staged is not None:
            commit.revisions += staged.revisions
            commit.groups += staged.groups
            commit.members += staged.members
            commit.gone += staged.gone
            commit.marks += staged.marks

    def append(
        self,
        sender: int,
        kind: str,
        body: Any = None,
        *,
        key: str = "",
        ref: int = 0,
        reply_to: int = 0,
        mentions: list[int] | None = None,
        digest: int = 0,
    ) -> Entry:
        """Add an entry to the log; it is stored and told with this turn."""
        ts = self.node.turn.now_ms
        if ts < self.ts:
            ts = self.ts  # the wall clock was set back; a log's times never are
        else:
            self.ts = ts
        drafts = self._drafts
        seq = self.head + 1 + len(drafts)
        entry = Entry(
            seq=seq,
            sender=sender,
            ts=ts,
            kind=kind,
            body=body,
            ref=ref,
            reply_to=reply_to,
            mentions=mentions,
            key=key,
        )
        author = sender if kind in MESSAGE_KINDS else 0
        drafts.append((encode_entry(entry), key_bytes(key), sender, author, mentions))
        if key:
            self.keys.add(sender, key, (seq, ts, digest))
        return entry

    def answer(self, connection: Connection, command_id: int, reply: object) -> None:
        """Reply to a command when the turn is durable, in the order of the answers."""
        self._answers.append((connection, command_id, reply))

    def answer_by(
        self, connection: Connection, command_id: int, answer: Callable[[], None]
    ) -> None:
        """Like `answer`, by a call that makes the reply then."""
        self._answers.append((connection, command_id, partial(answer)))

    def after(self, effect: Callable[[], None]) -> None:
        """Do something that others see, when the turn is durable, at this place of the log."""
        if self._effects is None:
            self._effects = []
        self._effects.append((len(self._drafts), effect))

    @property
    def next_seq(self) -> int:
        """The seq that the next entry to be appended gets."""
        return self.head + 1 + len(self._drafts)

    def entry(self, seq: int) -> Entry:
        """A durable entry in its present state. Raises `NeedEntries` where it must be fetched."""
        payload = self._revised.get(seq) if self._revised else None
        if payload is None:
            payload = self.recent.payload(seq)
        if payload is None:
            raise NeedEntries([seq])
        return decode_entry(payload)

    def revise(self, entry: Entry) -> None:
        """Change the present state of a durable entry, when the turn is durable."""
        payload = encode_entry(entry)
        if self._revised is None:
            self._revised = {}
        self._revised[entry.seq] = payload
        self._stage().revisions.append(Revision(self.name, entry.seq, payload))

    def _stage(self) -> Commit:
        if self._staged is None:
            self._staged = Commit()
        return self._staged

    def admit(self, member: Member) -> None:
        """Make a user a member from the next entry on."""
        self.members[member.user] = member
        self._stage().members.append(member)
        self.after(partial(self._admitted, member.user))

    def _admitted(self, user: int) -> None:
        self.node.registry.interested(user, self)
        for connection in self.node.registry.connections_of(user):
            self.subscribe(connection)

    def expel(self, user: int) -> None:
        """End a membership: no entry after those of this turn so far reaches the user."""
        del self.members[user]
        staged = self._stage()
        staged.members = [member for member in staged.members if member.user != user]
        staged.gone.append((self.name, user))
        self.after(partial(self._expelled, user))

    def _expelled(self, user: int) -> None:
        self.node.registry.lost_interest(user, self)
        for connection in self.node.registry.connections_of(user):
            self.unsubscribe(connection)
            if connection.behind:
                connection.behind.discard(self.name)

    def stage_member(self, member: Member) -> None:
        """Store a member's new role."""
        self.members[member.user] = member
        self._stage().members.append(member)

    def stage_group(self, group: Group) -> None:
        """Store the group's new data."""
        self.group = group
        self._stage().groups.append(group)

    def move_mark(self, user: int, *, read: int = 0, delivered: int = 0) -> bool:
        """Move a user's marks forward; False if they were there already."""
        mark = self.marks.get(user)
        if mark is None:
            mark = self.marks[user] = Mark(self.name, user)
        read = max(mark.read, min(read, self.head))
        delivered = max(mark.delivered, min(delivered, self.head), read)
        if (read, delivered) == (mark.read, mark.delivered):
            return False
        mark.read, mark.delivered = read, delivered
        self._stage().marks.append(Mark(self.name, user, read, delivered))
        return True

    # Queries: a connection's later commands to this conversation wait for the answer

    def query(self, connection: Connection, command: Any, work: Query) -> None:
        """Run something that reads the store, beside the turns; it answers by itself.

        It starts when this turn is durable and answered, so that it sees what came before it.
        """
        self._waiting[connection] = deque()
        start = partial(self._start_query, connection, command, work)
        self._answers.append((connection, command.id, start))

    def _start_query(self, connection: Connection, command: Any, work: Query) -> None:
        self.node.tasks.start_soon(self._run_query, connection, command, work)

    def proceed(self, connection: Connection, command: Any, rule: Rule) -> None:
        """At the end of a query that does not answer: decide, with what it has found out."""
        self._waiting[connection].appendleft((connection, command, rule))

    async def _run_query(self, connection: Connection, command: Any, work: Query) -> None:
        try:
            await connection.perform(command, partial(work, self))
        finally:
            self._stop_waiting(connection)

    def _fetch(self, connection: Connection, command: Any, rule: Rule, seqs: Sequence[int]) -> None:
        self._waiting[connection] = deque()
        self.node.tasks.start_soon(self._run_fetch, connection, command, rule, seqs)

    async def _run_fetch(
        self, connection: Connection, command: Any, rule: Rule, seqs: Sequence[int]
    ) -> None:
        async def work(connection: Connection, command: Any) -> None:
            for seq in seqs:
                payloads = await self.node.store.read(self.name, after=seq - 1, limit=1)
                self.recent.borrow(seq, payloads[0])
            self.proceed(connection, command, rule)

        try:
            await connection.perform(command, work)
        finally:
            self._stop_waiting(connection)

    def _stop_waiting(self, connection: Connection) -> None:
        items = self._waiting.pop(connection, None)
        if items:
            self._mailbox.put_back(list(items))
            if not self._queued:
                self._wake()

    # Applying: the turn is durable

    def apply(self) -> None:
        """Acknowledge and fan out what this turn decided."""
        if not self._loaded:
            return
        answers, drafts, effects, revised = (
            self._answers,
            self._drafts,
            self._effects,
            self._revised,
        )
        self._clear()
        if drafts:
            self.head += len(drafts)
            self.node.counters.appended += len(drafts)
            self.recent.extend(drafts)
        if revised:
            for seq, payload in revised.items():
                self.recent.revise(seq, payload)
        self._reply(answers)
        if effects:
            self._apply_in_order(drafts, effects)
        elif drafts:
            self._fan_out(drafts)
        if self._blocked:
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
                reply()
            elif type(reply) is Refusal:
                replies.append(error_reply(command_id, reply))
            else:
                replies.append(reply)
        if last is not None:
            last.answer_all(replies)

    def _apply_in_order(
        self, drafts: list[Draft], effects: list[tuple[int, Callable[[], None]]]
    ) -> None:
        """Effects stand between entries: who joins sees the entries after, who leaves, before."""
        start = 0
        for index, effect in effects:
            if index > start:
                self._fan_out(drafts[start:index])
                start = index
            effect()
        if start < len(drafts):
            self._fan_out(drafts[start:])

    def _fan_out(self, drafts: list[Draft]) -> None:
        """Write the entries to every subscriber: one shared image per wire, keys to senders."""
        if len(drafts) == 1:
            self._fan_out_one(drafts[0])
            return
        reached = 0
        batch: Batch | None = None
        for wire, subscribers in self._subscribers:
            count = len(subscribers)
            if not count:
                continue
            reached += count
            if batch is None:
                batch = Batch(self.name, self._prefix, drafts, self)
            if count <= FEW:
                self._write_to_few(batch, wire, subscribers)
            else:
                self._write_to_many(batch, wire, subscribers)
        self.node.counters.delivered += reached * len(drafts)

    def _fan_out_one(self, draft: Draft) -> None:
        """A batch of one, to few: what most direct conversations do in most turns."""
        sender = draft[2]
        reached = 0
        for wire, subscribers in self._subscribers:
            count = len(subscribers)
            if not count:
                continue
            reached += count
            if count > FEW or wire.codec is JSON:
                batch = Batch(self.name, self._prefix, [draft], self)
                self._write_to_many(batch, wire, subscribers)
                continue
            plain, keyed = pair_of_images(wire, self._prefix, draft, self)
            for outbox in tuple(subscribers):
                image = keyed if outbox.user == sender else plain
                if outbox.pending is None:
                    outbox.pending = image
                    self.node.flusher.dirty.append(outbox)
                else:
                    outbox.push(image)
        self.node.counters.delivered += reached

    def _write_to_few(self, batch: Batch, wire: Wire, subscribers: dict[Outbox, None]) -> None:
        """Look at each for being a sender; the outboxes may leave as they are written to."""
        senders = batch.senders
        for outbox in tuple(subscribers):
            user = outbox.user
            outbox.push(batch.keyed(wire, user) if user in senders else batch.plain(wire))

    def _write_to_many(self, batch: Batch, wire: Wire, subscribers: dict[Outbox, None]) -> None:
        """The loop that fan-out is made of: no call per member who is clean."""
        own = [
            connection
            for user in batch.senders
            for connection in self.node.registry.connections_of(user)
            if connection in subscribers
        ]
        for connection in own:
            connection.push(batch.keyed(wire, connection.user))
            subscribers.pop(connection, None)
        image = batch.plain(wire)
        dirty = self.node.flusher.dirty.append
        slow: list[Outbox] = []
        for outbox in subscribers:
            if outbox.pending is None:
                outbox.pending = image
                dirty(outbox)
            else:
                slow.append(outbox)
        for outbox in slow:
            outbox.push(image)
        for connection in own:
            self.subscribe(connection)

    def tell(
        self, event: object, *, besides: object = None, users: Sequence[int] | None = None
    ) -> None:
        """An event that is no entry, to all live members' connections (or those of some)."""
        if users is not None:
            for user in users:
                for connection in self.node.registry.connections_of(user):
                    if connection is not besides:
                        connection.push_event(event)
            return
        self._tell_subscribers(event, besides, ephemeral=False)

    def tell_ephemeral(self, event: object, *, besides: object = None) -> None:
        """An event that slow connections may miss."""
        self._tell_subscribers(event, besides, ephemeral=True)

    def _tell_subscribers(self, event: object, besides: object, *, ephemeral: bool) -> None:
        for wire, subscribers in self._subscribers:
            if subscribers:
                data = wire.wrap(wire.codec.encode(event))
                for outbox in list(subscribers):
                    if outbox is besides:
                        continue
                    if ephemeral:
                        outbox.push_ephemeral(data)
                    else:
                        outbox.push(data)

    # Subscribers

    def _has_subscribers(self) -> bool:
        return any(subscribers for _, subscribers in self._subscribers)

    def subscribe(self, connection: Connection) -> None:
        """Live entries from the next one on, unless the connection is behind here."""
        if not (connection.behind and self.name in connection.behind) and not connection.closing:
            self._subscribers[connection.wire.index][1][connection] = None

    def unsubscribe(self, outbox: Outbox) -> None:
        self._subscribers[outbox.wire.index][1].pop(outbox, None)

    def caught_up(self, connection: Connection, seq: int, head: int) -> None:
        """A reply told the connection of everything up to `seq`: is it live again?

        `head` is the newest entry that was fanned out before the reply.
        """
        if connection.behind and self.name in connection.behind and seq >= head:
            connection.behind.discard(self.name)
            if connection.user in self.members:
                self.subscribe(connection)

    def _all_behind(self) -> None:
        for _, subscribers in self._subscribers:
            for outbox in list(subscribers):
                outbox.fall_behind(self)

    # Failing and ending

    def fail(self, error: Unavailable) -> None:
        """The commit did not succeed: nothing was acknowledged; load again before going on."""
        self._give_up(unavailable(error))

    def crash(self, refusal: Refusal) -> None:
        """A defect: whoever may have missed something is behind; load again."""
        self._all_behind()
        self._give_up(refusal)

    def _give_up(self, refusal: Refusal) -> None:
        answers = self._answers
        self._clear()
        self._loaded = False
        for connection, command_id, reply in answers:
            connection.refuse(command_id, reply if type(reply) is Refusal else refusal)
            if type(reply) is partial and reply.func == self._start_query:
                self._stop_waiting(connection)
        if not self._loading:
            self._loading = True
            self.node.turn.load(self)

    def end(self) -> None:
        """Stop being active (idle, dissolved, or never there)."""
        self.ended = True
        self.node.registry.forget(self)

    def idle_since(self, moment: float) -> bool:
        """Whether nothing is under way and nothing was asked after `moment`."""
        return (
            self.used_at < moment
            and not self._queued
            and not self._loading
            and not len(self._mailbox)
            and not self._waiting
            and not self._blocked
            and not self._answers
            and not self._drafts
        )

    def statistics(self) -> ConversationStatistics:
        return ConversationStatistics(
            self.name,
            self.head,
            len(self.members),
            sum(len(subscribers) for _, subscribers in self._subscribers),
            len(self._waiting),
            self._mailbox.statistics(),
        )
