"""What a store remembers of the conversations that it writes, and of marks. No I/O.

Only a cache: what is not here is read again, and a commit that fails makes its conversations
forgotten and doubtful.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from msgspec import Struct

KNOWN_CONVERSATIONS_MAX = 200_000
"""About 60 MB. Beyond, those not used for longest are forgotten and read again when needed."""
KNOWN_MARKS_MAX = 200_000
"""Beyond, all are forgotten, which costs one more read each."""
DOUBTFUL_MAX = 10_000
"""Conversations after a failed commit, until they are loaded again. Beyond, the oldest is not
marked as doubtful any more: what may land late of its commit may then become part of its log."""


class Known(Struct, gc=False):
    """A log that this store writes under `epoch`."""

    epoch: int
    seq: int
    ts: int
    checkpoint: int
    opened: bool = False
    """Its row in `heads` says that it is in hand, in our words."""
    due: bool = False
    """The checkpoint should move with the next commit."""


class Knowledge:
    """What is known, bounded."""

    def __init__(self) -> None:
        self._conversations: OrderedDict[str, Known] = OrderedDict()
        self._doubtful: OrderedDict[str, None] = OrderedDict()
        self._marks: dict[tuple[str, int], tuple[int, int]] = {}
        self._left: set[str] = set()
        """Bounded by what is taken up and not yet put away."""
        self.shared = False
        """Other processes may write, too: there are epochs or leases."""
        self.lapses = 0
        """How often something was forgotten because a commit failed."""

    def get(self, conv: str) -> Known | None:
        found = self._conversations.get(conv)
        if found is not None:
            self._conversations.move_to_end(conv)
        return found

    def put(self, conv: str, known: Known) -> None:
        self._conversations[conv] = known
        self._conversations.move_to_end(conv)
        if len(self._conversations) > KNOWN_CONVERSATIONS_MAX:
            self._conversations.popitem(last=False)

    def alone(self, conv: str) -> Known | None:
        """What is known of a log that nobody else can write to."""
        found = None if self.shared else self.get(conv)
        return found if found is not None and found.epoch == 0 else None

    def forget(self, conv: str) -> None:
        """It is put away."""
        self._conversations.pop(conv, None)
        self._left.discard(conv)

    def left_by_other(self, conv: str) -> None:
        """Its former writer had it in hand when we took it up."""
        self._left.add(conv)

    def is_left_by_other(self, conv: str) -> bool:
        """Whether that is so, and we have not written to it since."""
        return conv in self._left

    def written(self, conv: str) -> None:
        """We have written to it."""
        self._left.discard(conv)

    def doubt(self, convs: Iterable[str]) -> None:
        """A commit to these failed: it may have been written, in part, now or later."""
        self.lapses += 1
        self._marks.clear()
        for conv in convs:
            self._conversations.pop(conv, None)
            self._doubtful[conv] = None
        while len(self._doubtful) > DOUBTFUL_MAX:
            self._doubtful.popitem(last=False)

    def is_doubtful(self, conv: str) -> bool:
        return conv in self._doubtful

    def settled(self, conv: str) -> None:
        """Nothing that lands late can count any more."""
        self._doubtful.pop(conv, None)

    def mark(self, conv: str, user: int) -> tuple[int, int] | None:
        return self._marks.get((conv, user))

    def put_mark(self, conv: str, user: int, mark: tuple[int, int]) -> None:
        if len(self._marks) >= KNOWN_MARKS_MAX:
            self._marks.clear()
        self._marks[conv, user] = mark
