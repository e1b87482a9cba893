"""Another node, as this one speaks to it: words gather in its outbox and go as envelopes.

To the conversations of this node a peer is one more reader, which stands for all members that are
connected there: it gets each batch once. Like a connection's outbox it is marked dirty and flushed
once a turn, and never waited for; what cannot be sent is lost, and the link begins anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actors.cluster.link import Link
from actors.cluster.words import (
    AnyWord,
    Batch,
    Behind,
    Close,
    Confirm,
    Event,
    Join,
    Moved,
    Part,
    Start,
    Tell,
    encode,
)

if TYPE_CHECKING:
    from actors.cluster.caller import Caller
    from actors.cluster.cluster import Cluster
    from actors.images import Drafts
    from actors.ledger import Ledger

ENVELOPE_MAX_BYTES = 256 * 1024
"""Words beyond go in the next envelope; a single word may be larger."""
EPHEMERAL_MAX_BYTES = 1024 * 1024
"""With more than this unsent, what may be missed is not said."""
NEVER_PASSED = (-1, 0)
"""A mark on a link on which nothing arrives."""


class _First(msgspec.Struct):
    seq: int


_first_of = msgspec.msgpack.Decoder(_First).decode


def batch_word(conv: str, drafts: Drafts) -> bytes:
    """New entries, encoded once for however many peers."""
    first = _first_of(drafts.payloads[0]).seq
    return encode(Batch(conv, first, drafts.payloads, drafts.cuts, drafts.senders))


def _came(ledger: Ledger, user: int) -> int:
    """Since which entry they are a member; 0 where a turn under way has put them out."""
    member = ledger.members.get(user)
    return member.since if member is not None else 0


class Peer:
    def __init__(self, cluster: Cluster, inbox: str) -> None:
        self.cluster = cluster
        self.inbox = inbox
        self.link: Link = Link(cluster.inbox, cluster.node.now(), cluster.numbers)
        self.users: dict[int, bool] = {}
        """Who has a session there, and whether they hide it."""
        self.followed: dict[Ledger, dict[int, None]] = {}
        """Conversations of this node that are told there, and the members for whom."""
        self.bounced: dict[int, int] = {}
        """By slot, of the commands from there, the attempt that has failed."""
        self.gone = False
        self._words: list[bytes] = []
        self._bytes = 0
        self._join: Join | None = None
        self._dirty = False
        self._resetting = False

    # Speaking

    def say(self, word: AnyWord) -> None:
        """Have a word sent with the next flush."""
        self.say_encoded(encode(word))

    def say_encoded(self, word: bytes) -> None:
        """Likewise, where others are told the same."""
        if self.link.lost:
            return
        self._settle_join()
        self._words.append(word)
        self._bytes += len(word)
        self.mark_dirty()

    def mark_dirty(self) -> None:
        """Have an envelope sent, if only to confirm."""
        if not self._dirty and not self.gone:
            self._dirty = True
            self.cluster.node.flusher.dirty.append(self)

    def flush(self) -> None:
        """Send what has gathered; without words, an envelope that only confirms."""
        if not self._dirty:
            return  # it was sent before its time
        self._dirty = False
        self._settle_join()
        words, self._words, self._bytes = self._words, [], 0
        if self.link.lost and not self.link.session:
            return
        start = 0
        size = 0
        for index, word in enumerate(words):
            size += len(word)
            if size > ENVELOPE_MAX_BYTES and index > start:
                if not self._send(words[start:index]):
                    return
                start, size = index, len(word)
        self._send(words[start:])

    def _send(self, words: list[bytes]) -> bool:
        sealed = self.link.seal(words, self.cluster.node.now())
        if self.cluster.bus.send(self.inbox, encode(sealed)):
            return True
        self.link.refuse()
        return False

    def begin(self, users: list[int], hidden: list[int]) -> None:
        """Begin a session: who is here, and all that is followed there."""
        self._words, self._bytes, self._join = [], 0, None
        self.link.begin(self.cluster.node.now())
        self.say(Start(users, hidden))
        self.rejoin()

    def rejoin(self) -> None:
        """Say again who is told of what there: what came of it before is not known."""
        self._settle_join()
        for ledger, followers in self.followed.items():
            self.say(self._joined(ledger, list(followers), whole=True, doubt=True))

    def bounce(self, slot: int, attempt: int, tag: int) -> None:
        """A command from there is not for this node (any more)."""
        self.bounced[slot] = attempt
        self.say(Moved(tag))

    def mark(self) -> tuple[int, int]:
        """Send what has gathered, and have its confirmation hurried: what `passed` is to be asked.

        Between the two nothing is waited for.
        """
        self.say(Confirm())
        return self.sent()

    def sent(self) -> tuple[int, int]:
        """Likewise, for those who can wait until the other node says something anyway."""
        self.mark_dirty()
        self.flush()
        if self.link.lost:
            return NEVER_PASSED  # what was said may have been dropped
        return self.link.session, self.link.number

    def passed(self, mark: tuple[int, int]) -> bool:
        """Whether all up to this mark has been heard there."""
        session, number = mark
        return self.link.session == session and self.link.confirmed >= number

    def out_of_reach(self, mark: tuple[int, int]) -> bool:
        """Whether there is no use in waiting for the mark to be passed."""
        link = self.link
        return self.gone or link.session != mark[0] or not link.in_step(self.cluster.node.now())

    # As a reader of this node's conversations

    def join(self, ledger: Ledger, user: int, *, doubt: bool = False) -> None:
        """A member who is there gets the entries from the next one on.

        `doubt`: and may have missed some before it.
        """
        users = self.followed.get(ledger)
        doubt = doubt or ledger.doubt
        if self._resetting:
            # They may have missed what came when it was not known that they are there.
            self.followed.setdefault(ledger, {})[user] = None
            return
        if users is None:
            self.followed[ledger] = {user: None}
            self._settle_join()
            self._join = self._joined(ledger, [user], whole=True, doubt=doubt)
        elif user in users:
            return
        else:
            users[user] = None
            join = self._join
            same = join is not None and (join.conv, join.head) == (ledger.name, ledger.told)
            if join is not None and same and (join.doubt or not doubt):
                join.users.append(user)
                join.came.append(_came(ledger, user))
                return
            self._settle_join()
            self._join = self._joined(ledger, [user], whole=False, doubt=doubt)
        self.mark_dirty()

    def _joined(self, ledger: Ledger, users: list[int], *, whole: bool, doubt: bool) -> Join:
        came = [_came(ledger, user) for user in users]
        return Join(ledger.name, ledger.epoch, ledger.told, users, came, whole, doubt)

    def _settle_join(self) -> None:
        join, self._join = self._join, None
        if join is not None:
            self.say(join)

    def part(self, ledger: Ledger, user: int, *, tell: bool = True) -> bool:
        """A member who is there is told no more. Whether nobody is left there."""
        users = self.followed.get(ledger)
        if users is None or user not in users:
            return False
        del users[user]
        if tell:
            self.say(Part(ledger.name, [user]))
        if not users:
            del self.followed[ledger]
            return True
        return False

    def close(self, ledger: Ledger, *, tell: bool) -> None:
        """The conversation is active no more."""
        if self.followed.pop(ledger, None) is not None and tell:
            self.say(Close(ledger.name))

    def followers_of(self, ledger: Ledger) -> int:
        """How many members are told there."""
        return len(self.followed.get(ledger, ()))

    def event(
        self, conv: str, event: dict[str, Any], besides: Caller | None, ephemeral: bool
    ) -> None:
        """An event for all who follow there."""
        if not ephemeral or self._bytes < EPHEMERAL_MAX_BYTES:
            self.say(Event(conv, event, self._number(besides), ephemeral))

    def tell(
        self, users: list[int], event: dict[str, Any], besides: Caller | None, behind: str
    ) -> None:
        """An event for users who are there."""
        self.say(Tell(users, event, self._number(besides), behind))

    def behind(self, ledger: Ledger) -> None:
        """Whoever follows there may have missed something."""
        self.say(Behind(ledger.name, ledger.head))

    def _number(self, besides: Caller | None) -> int:
        return besides.number if besides is not None and besides.peer is self else 0

    # Who is there

    def reset_users(self, users: list[int], hidden: list[int]) -> None:
        """All who are there now; `rejoin` is to follow."""
        now = set(users)
        for user in [user for user in self.users if user not in now]:
            self.departed(user)
        self._resetting = True
        try:
            self.arrived(users, hidden)
        finally:
            self._resetting = False

    def arrived(self, users: list[int], hidden: list[int]) -> None:
        hiding = set(hidden)
        for user in users:
            self.users[user] = user in hiding
            self.cluster.node.registry.arrived(self, user, hidden=user in hiding)

    def departed(self, user: int, seen_ms: int = 0) -> None:
        if user in self.users:
            hidden = self.users.pop(user)
            self.cluster.node.registry.departed(self, user, hidden=hidden, seen_ms=seen_ms)

    def drop(self) -> None:
        """The node is dead or has left."""
        self.gone = True
        for user in list(self.users):
            self.departed(user)
        for ledger in list(self.followed):
            ledger.subscribers.forget_peer(self)
        self.followed.clear()
