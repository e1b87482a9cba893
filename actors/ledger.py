"""What one turn of a conversation decides: the calls that rules make.

State (members, marks, group, newest entries, keys) and what is staged on top of it until the turn's
commit is durable. All plain calls; the actor that runs the turns is `actors.conversation`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from actors.images import Drafts, key_bytes
from actors.memory import KeyWindow, Recent, digest, draft_again
from actors.subscribers import Subscribers
from storage.names import slot_of
from storage.records import (
    MESSAGE_KINDS,
    Append,
    Commit,
    Entry,
    Group,
    Loaded,
    Mark,
    Member,
    PlainEntry,
    Revision,
    decode_entry,
    encode_entry,
)

if TYPE_CHECKING:
    from actors.cluster.peer import Peer
    from actors.connection import Connection
    from actors.node import Node
    from actors.outbox import Outbox

Effect = Callable[[], None]


class NeedEntries(Exception):
    """A rule cannot decide before these older entries are fetched from the store."""

    def __init__(self, seqs: Sequence[int]) -> None:
        super().__init__(seqs)
        self.seqs = seqs


class Ledger:
    """`head` is the newest entry that readers may know of."""

    __slots__ = (
        "_answers",
        "_drafts",
        "_effects",
        "_revised",
        "_staged",
        "doubt",
        "epoch",
        "group",
        "head",
        "keys",
        "marks",
        "members",
        "name",
        "node",
        "recent",
        "slot",
        "subscribers",
        "told",
        "ts",
    )

    def __init__(self, node: Node, name: str) -> None:
        self.node = node
        self.name = name
        self.slot = slot_of(name) if node.cluster is not None else 0
        self.epoch = 0
        """Under which it is written; 0 where one process is alone."""
        self.doubt = False
        """What of it was told, and to whom, is not known: its last writer is gone."""
        self.head = 0
        self.told = 0
        """What members were told up to; behind `head` while a turn is being told."""
        self.ts = 0
        self.group: Group | None = None
        self.members: dict[int, Member] = {}
        self.marks: dict[int, Mark] = {}
        self.keys = KeyWindow()
        self.recent = Recent(0)
        self.subscribers = Subscribers(node, self)
        self._clear()

    def _clear(self) -> None:
        """Forget what this turn has decided."""
        self._answers: list[tuple[Connection, int, object]] = []
        self._drafts: Drafts | None = None
        self._effects: list[tuple[int, Effect]] | None = None
        self._revised: dict[int, bytes] | None = None
        self._staged: Commit | None = None

    def _remember(self, loaded: Loaded) -> None:
        """Take the state from the store in the place of any other."""
        self.head = self.told = loaded.head.seq
        self.ts = loaded.head.ts
        self.group = loaded.group
        self.members = (
            {} if loaded.missing_users else {member.user: member for member in loaded.members}
        )
        self.marks = {mark.user: mark for mark in loaded.marks}
        self.keys = KeyWindow()
        self.recent = Recent(loaded.head.seq - len(loaded.tail))
        drafts = Drafts()
        for payload in loaded.tail:
            entry = decode_entry(payload)
            self.keys.recall(entry)
            draft_again(drafts, entry, payload)
        self.recent.extend(drafts)

    def _stage_into(self, commit: Commit) -> None:
        """Add what was decided to the turn's commit."""
        drafts = self._drafts
        if self.epoch and (drafts is not None or self._staged is not None):
            commit.epochs[self.name] = self.epoch
        if drafts is not None:
            commit.appends.append(Append(self.name, self.head + 1, drafts.payloads, self.ts))
        staged = self._staged
        if staged is not None:
            commit.revisions += staged.revisions
            commit.groups += staged.groups
            commit.members += staged.members
            commit.gone += staged.gone
            commit.marks += staged.marks

    # Entries

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
        what: int = 0,
    ) -> Entry:
        """Add an entry to the log; it is stored and told with this turn.

        `what` is the digest of what was sent, for the key.
        """
        ts = self.node.turn.now_ms
        if ts < self.ts:
            ts = self.ts  # the wall clock was set back; a log's times never are
        else:
            self.ts = ts
        drafts = self._drafts
        if drafts is None:
            drafts = self._drafts = Drafts()
        seq = self.head + 1 + len(drafts.payloads)
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
        drafts.add(encode_entry(entry), key_bytes(key), sender, author, mentions)
        if key:
            self.keys.add(hash((sender, key)), (seq, ts, what))
        return entry

    def message(self, sender: int, key: str, kind: str, body: Any) -> tuple[int, int]:
        """`append` of a message without options, once per key: its seq and ts.

        The path of nearly all that is ever appended, and therefore flat. Raises `Refusal` where
        the key was used for something else.
        """
        name = hash((sender, key))
        keys = self.keys
        known = keys.young.get(name) or keys.old.get(name)
        if known is not None:
            return keys.same(known, digest(kind, body, 0, 0, None))
        ts = self.node.turn.now_ms
        if ts < self.ts:
            ts = self.ts
        else:
            self.ts = ts
        drafts = self._drafts
        if drafts is None:
            drafts = self._drafts = Drafts()
        payloads = drafts.payloads
        seq = self.head + 1 + len(payloads)
        payloads.append(encode_entry(PlainEntry(seq, sender, ts, kind, body, key)))
        drafts.cuts.append(key_bytes(key))
        drafts.senders.append(sender)
        drafts.authors.append(sender)
        keys.add(name, (seq, ts, digest(kind, body, 0, 0, None)))
        return seq, ts

    @property
    def next_seq(self) -> int:
        """The seq that the next entry to be appended gets."""
        return self.head + 1 + self._drafted

    @property
    def _drafted(self) -> int:
        return len(self._drafts.payloads) if self._drafts is not None else 0

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

    # Answers and effects: when the turn is durable

    def answer(self, connection: Connection, command_id: int, reply: object) -> None:
        """Reply to a command when the turn is durable, in the order of the answers."""
        self._answers.append((connection, command_id, reply))

    def answer_by(self, connection: Connection, command_id: int, answer: Effect) -> None:
        """Like `answer`, by a call that makes the reply then."""
        self._answers.append((connection, command_id, partial(answer)))

    @property
    def answers_waiting(self) -> int:
        """How many commands this turn has to answer so far."""
        return len(self._answers)

    def after(self, effect: Effect) -> None:
        """Do something that others see, when the turn is durable, at this place of the log."""
        if self._effects is None:
            self._effects = []
        self._effects.append((self._drafted, effect))

    def tell(
        self, event: object, *, besides: object = None, users: Sequence[int] | None = None
    ) -> None:
        """An event that is no entry, to all live members' connections (or those of some)."""
        if users is None:
            self.subscribers.tell(event, besides=besides)
        else:
            self.node.registry.tell(users, event, besides=besides)

    def tell_ephemeral(self, event: object, *, besides: object = None) -> None:
        """An event that slow connections may miss."""
        self.subscribers.tell(event, besides=besides, ephemeral=True)

    # Members

    def admit(self, member: Member) -> None:
        """Make a user a member from the next entry on."""
        self.members[member.user] = member
        self._stage().members.append(member)
        self.after(partial(self._admitted, member.user))

    def _admitted(self, user: int) -> None:
        registry = self.node.registry
        registry.interested(user, self)  # type: ignore[arg-type]
        for connection in registry.connections_of(user):
            connection.no_longer_behind(self.name)  # that was another membership
            self.subscribe(connection)
        for peer in registry.peers_of(user):
            self.subscribers.add_peer(peer, user)

    def reach(self, peer: Peer, user: int) -> None:
        """A member has come to another node."""
        if user in self.members:
            self.subscribers.add_peer(peer, user)

    def expel(self, user: int) -> None:
        """End a membership: no entry after those of this turn so far reaches the user."""
        del self.members[user]
        staged = self._stage()
        staged.members = [member for member in staged.members if member.user != user]
        staged.gone.append((self.name, user))
        self.after(partial(self._expelled, user))

    def _expelled(self, user: int) -> None:
        self._let_go(user)
        for connection in self.node.registry.connections_of(user):
            connection.no_longer_behind(self.name)

    def _let_go(self, user: int) -> None:
        registry = self.node.registry
        registry.lost_interest(user, self)  # type: ignore[arg-type]
        for connection in registry.connections_of(user):
            self.unsubscribe(connection)
        for peer in registry.peers_of(user):
            self.subscribers.discard_peer(peer, user)

    def _let_go_in_doubt(self) -> None:
        """Of whoever this turn was to put out, nobody knows whether they are.

        If the store says so too, the answer to their pull does; if not, they are taken up again.
        """
        gone = [user for _, user in self._staged.gone] if self._staged is not None else []
        self.node.registry.tell(gone, {"t": "behind", "conv": self.name, "head": self.head})
        for user in gone:
            self._let_go(user)

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

    # Subscribers

    def subscribe(self, connection: Connection) -> None:
        """Live entries from the next one on."""
        self.subscribers.add(connection)

    def unsubscribe(self, outbox: Outbox) -> None:
        self.subscribers.discard(outbox)
