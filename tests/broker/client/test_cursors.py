"""The cursors against a model: whatever comes in whatever way, each entry once and in order."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker.client.cursors import Cursors
from broker.client.limits import HELD_ENTRIES
from broker.client.model import Message
from tests.broker.client.peer import ME

CONV = "g/1"


def entry(seq: int, conv: str = CONV) -> Message:
    return Message(conv, seq, 5, 0, "text", seq)


class LossyBroker(RuleBasedStateMachine):
    """A log that grows, and a client that hears of it by every way, or does not."""

    @initialize(start=st.integers(0, 5), head=st.integers(5, 20))
    def begin(self, start: int, head: int) -> None:
        self.head = head
        self.start = start
        self.seen: list[int] = []
        self.cursors = Cursors({CONV: start}, from_now=False)
        self.pull: int | None = None

    def log(self, after: int, limit: int) -> list[Message]:
        return [entry(seq) for seq in range(after + 1, min(after + limit, self.head) + 1)]

    def see(self, entries: list[Message]) -> None:
        self.seen += [each.seq for each in entries]

    @rule(room=st.booleans())
    def live(self, room: bool) -> None:
        self.head += 1
        self.see(self.cursors.live(entry(self.head), room=room))

    @rule(count=st.integers(1, 5))
    def lose(self, count: int) -> None:
        self.head += count

    @rule(back=st.integers(0, 8), room=st.booleans())
    def repeat(self, back: int, room: bool) -> None:
        self.see(self.cursors.live(entry(max(self.head - back, 1)), room=room))

    @rule()
    def behind(self) -> None:
        self.cursors.behind(CONV, self.head)

    @rule()
    def ask(self) -> None:
        if self.pull is None and (lack := self.cursors.next_pull()) is not None:
            assert lack[0] == CONV
            self.pull = lack[1]

    @rule(limit=st.integers(1, 4))
    def answer(self, limit: int) -> None:
        if self.pull is not None:
            page = self.log(self.pull, limit)
            self.pull = None
            self.see(self.cursors.page(CONV, page, self.head))

    @rule()
    def break_off(self) -> None:
        self.pull = None
        self.cursors.lost()

    @rule(limit=st.integers(0, 4))
    def sync(self, limit: int) -> None:
        if self.cursors.resuming:
            page = self.log(self.cursors.positions()[CONV], limit)
            self.see(self.cursors.synced(CONV, self.head, 0, page))
            self.see(self.cursors.resumed())

    @invariant()
    def each_once_and_in_order(self) -> None:
        if hasattr(self, "seen"):
            assert self.seen == list(range(self.start + 1, self.start + 1 + len(self.seen)))

    def teardown(self) -> None:
        """When the broker is heard again, all that is missing comes."""
        if not hasattr(self, "seen"):
            return
        self.sync(0)
        self.live(True)
        for _ in range(1_000):
            if self.pull is None:
                self.ask()
            if self.pull is None:
                break
            self.answer(4)
        assert self.seen == list(range(self.start + 1, self.head + 1))


TestLossyBroker = LossyBroker.TestCase


def test_what_is_held_is_bounded() -> None:
    cursors = Cursors({CONV: 0, "g/2": 0}, from_now=False)
    cursors.resumed()
    far = HELD_ENTRIES + 10
    for seq in range(2, far):
        assert cursors.live(entry(seq)) == []
        assert cursors.live(entry(seq, "g/2")) == []
    # What was let go is not lost: the pull goes on to the newest entry known.
    seen: list[int] = []
    while (lack := cursors.next_pull()) is not None:
        conv, after = lack
        page = [entry(seq, conv) for seq in range(after + 1, min(after + 100, far - 1) + 1)]
        seen += [each.seq for each in cursors.page(conv, page, far - 1) if conv == CONV]
    assert seen == list(range(1, far))


def test_only_one_pull_of_a_conversation_at_a_time() -> None:
    cursors = Cursors({CONV: 0}, from_now=False)
    cursors.resumed()
    cursors.live(entry(5))
    assert cursors.next_pull() == (CONV, 0)
    cursors.live(entry(9))
    assert cursors.next_pull() is None
    page = [entry(seq) for seq in range(1, 6)]
    assert [each.seq for each in cursors.page(CONV, page, 5)] == [1, 2, 3, 4, 5]
    assert cursors.next_pull() == (CONV, 5)


def test_answer_older_than_what_is_known_does_not_skip_it() -> None:
    cursors = Cursors({CONV: 5}, from_now=False)
    cursors.resumed()
    cursors.behind(CONV, 5)
    assert cursors.next_pull() == (CONV, 5)
    cursors.live(entry(7))
    assert cursors.page(CONV, [], 5) == []
    assert cursors.next_pull() == (CONV, 5)
    assert [each.seq for each in cursors.page(CONV, [entry(6), entry(7)], 7)] == [6, 7]


def test_dissolved_group_ends_for_everybody() -> None:
    cursors = Cursors({CONV: 1}, from_now=False)
    cursors.user = ME
    cursors.resumed()
    end = Message(CONV, 2, 5, 0, "system", {"event": "dissolved", "by": 5})
    assert cursors.live(end) == [end]
    assert [each.seq for each in cursors.live(entry(9))] == [9]
