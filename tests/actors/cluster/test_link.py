"""Half of a link: whatever the bus loses, what is heard is a prefix in order, and a loss shows."""

from __future__ import annotations

from collections import deque
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import msgpack

from actors.cluster.link import CONTACT_S, RESTART_AFTER_MAX_S, RESTART_AFTER_S, Link
from actors.cluster.words import Behind, Envelope, Sealed, decode, encode

_sessions = count(1)


def link(name: str = "a", now: float = 0.0) -> Link:
    return Link(name, now, _sessions)


def carried(sealed: Sealed) -> Envelope:
    """What comes out of the bus."""
    return decode(encode(sealed))


def said(envelope: Sealed | Envelope) -> list[int]:
    return [word.head for word in carried_words(envelope)]


def carried_words(envelope: Sealed | Envelope) -> list[Behind]:
    opened = carried(envelope) if isinstance(envelope, Sealed) else envelope
    return [word for word in opened.words if isinstance(word, Behind)]


def word(number: int) -> bytes:
    return encode(Behind("d/1/2", number))


def begun(now: float = 0.0) -> tuple[Link, Link]:
    """Two halves that have each begun, heard the other, and know it."""
    a, b = link("a", now), link("b", now)
    for one, other in ((a, b), (b, a)):
        one.begin(now)
        assert other.hear(carried(one.seal([word(0)], now)), now).begins
    b.hear(carried(a.seal([], now)), now)
    a.hear(carried(b.seal([], now)), now)
    return a, b


def test_nothing_is_in_step_before_it_is_confirmed() -> None:
    a, b = link("a"), link("b")
    assert a.lost
    assert a.may_begin(0.0)
    a.begin(0.0)
    assert not a.in_step(0.0)
    b.begin(0.0)
    b.hear(carried(a.seal([word(1)], 0.0)), 0.0)
    a.hear(carried(b.seal([], 0.0)), 0.0)
    assert a.in_step(0.0)
    assert not b.in_step(0.0), "nobody has said that b was heard"


def test_words_come_once_and_in_order() -> None:
    a, b = begun()
    first, second = carried(a.seal([word(1), word(2)], 1.0)), carried(a.seal([word(3)], 1.0))
    assert said(first) == [1, 2]
    assert b.hear(first, 1.0).words == first.words
    assert b.hear(second, 1.0).words == second.words
    assert b.hear(second, 1.0).words == [], "an echo says nothing new"
    assert b.heard_session == a.session, "and is no loss"


def test_the_next_envelope_shows_a_loss_and_nothing_more_of_that_session_is_heard() -> None:
    a, b = begun()
    a.seal([word(1)], 1.0)  # lost
    assert b.hear(carried(a.seal([word(2)], 1.0)), 1.0).words == []
    assert b.hear(carried(a.seal([word(3)], 1.0)), 1.0).words == []

    a.hear(carried(b.seal([], 1.0)), 1.0)
    assert a.lost
    assert a.may_begin(1.0)
    a.begin(1.0)
    heard = b.hear(carried(a.seal([word(4)], 1.0)), 1.0)
    assert heard.begins
    assert [w.head for w in heard.words if isinstance(w, Behind)] == [4]


def test_a_session_whose_beginning_was_lost_is_begun_again() -> None:
    a, b = begun()
    before = a.session
    a.begin(1.0)
    a.seal([word(1)], 1.0)  # lost
    assert b.hear(carried(a.seal([word(2)], 1.0)), 1.0).words == []
    a.hear(carried(b.seal([], 1.1)), 1.1)
    assert not a.lost, "it was begun just now: the answer may be an old one"
    a.hear(carried(b.seal([], 1.1)), 1.0 + RESTART_AFTER_S)
    assert a.may_begin(1.0 + RESTART_AFTER_S)
    a.begin(1.0 + RESTART_AFTER_S)
    assert a.session > before


@pytest.mark.parametrize("way_s", [0.1, 0.3, 0.6, 1.2, 3.5])
def test_a_slow_way_comes_to_rest(way_s: float) -> None:
    """Confirmations later than a session was given at first are no loss; it is given more."""
    halves = link("a"), link("b")
    ways: tuple[deque[tuple[float, Sealed]], ...] = deque(), deque()
    sessions: list[tuple[int, ...]] = []
    for tick in range(600):
        now = tick / 10
        for half, way, other in zip(halves, ways, reversed(halves), strict=True):
            if half.may_begin(now):
                half.begin(now)
            if not half.lost:
                way.append((now + way_s, half.seal([word(tick)], now)))
            while way and way[0][0] <= now:
                other.hear(carried(way.popleft()[1]), now)
        sessions.append(tuple(half.session for half in halves))
    assert all(half.confirmed and not half.lost for half in halves)
    assert len(set(sessions[300:])) == 1


def wait_in_vain(a: Link, b: Link, began: float) -> float:
    """Until when the half that has begun is waited for, by another that hears nothing."""
    now = began
    while not a.may_begin(now):
        now += RESTART_AFTER_S / 2
        a.hear(carried(b.seal([], now)), now)
    return now


def test_patience_grows_with_each_session_in_vain_and_is_as_before_after_one_that_was_heard() -> (
    None
):
    a, b = link("a"), link("b")
    b.begin(0.0)
    now, waited = 0.0, []
    for _ in range(7):
        a.begin(now)
        until = wait_in_vain(a, b, now)
        waited.append((until - now) / RESTART_AFTER_S)
        now = until
    assert waited == [1, 2, 4, 8, 16, 16, 16]
    assert waited[-1] * RESTART_AFTER_S == RESTART_AFTER_MAX_S

    a.begin(now)
    b.hear(carried(a.seal([], now)), now)
    a.hear(carried(b.seal([], now)), now)
    assert a.in_step(now)
    a.seal([], now)  # lost
    b.hear(carried(a.seal([], now)), now)
    now = wait_in_vain(a, b, now)
    a.begin(now)
    assert wait_in_vain(a, b, now) - now == RESTART_AFTER_S


def test_nothing_is_confirmed_by_an_envelope_before_which_words_were_lost() -> None:
    """They were said before it, and what is confirmed counts as answered."""
    a, b = begun()
    confirmed = a.confirmed
    b.hear(carried(a.seal([word(1)], 1.0)), 1.0)
    b.seal([word(2)], 1.0)  # lost
    a.hear(carried(b.seal([word(3)], 1.0)), 1.0)
    assert a.confirmed == confirmed
    assert not a.lost


def test_a_node_that_was_started_again_knows_nothing_and_says_so() -> None:
    a, _ = begun()
    later = RESTART_AFTER_S
    reborn = link("b", later)
    assert reborn.hear(carried(a.seal([word(5)], later)), later).words == []
    reborn.begin(later)
    heard = a.hear(carried(reborn.seal([word(6)], later)), later)
    assert heard.begins
    assert a.lost, "what was said to its former life is lost"


def test_two_links_of_a_node_never_have_the_same_session() -> None:
    """The other half may have outlived the first: it would take the second for it."""
    a, b = begun()
    again = link("a")
    again.begin(0.0)
    heard = b.hear(carried(again.seal([word(1)], 0.0)), 0.0)
    assert heard.begins
    assert again.session != a.session


def test_what_is_not_confirmed_has_an_age() -> None:
    a, b = begun()
    assert a.lag_s(9.0) == 0.0
    a.hear(carried(b.seal([], 1.0)), 1.0)
    b.hear(carried(a.seal([word(1)], 2.0)), 2.0)
    a.seal([word(2)], 3.0)
    assert a.lag_s(5.0) == 3.0, "of the oldest"
    a.hear(carried(b.seal([], 6.0)), 6.0)
    assert a.lag_s(6.5) == 0.5, "the second still is under way"


def test_silence_is_out_of_contact_and_a_word_is_contact_again() -> None:
    a, b = begun()
    assert a.in_step(CONTACT_S - 0.1)
    assert not a.in_step(CONTACT_S)
    assert not a.lost, "nothing says that it was not heard"
    a.hear(carried(b.seal([], CONTACT_S)), CONTACT_S)
    assert a.in_step(CONTACT_S)


class LossyBus(RuleBasedStateMachine):
    """Two halves over a bus that keeps the order and may lose anything, and lives that end."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.counter = 0
        self.sessions = count(1)
        self.links = [Link("0", 0.0, self.sessions), Link("1", 0.0, self.sessions)]
        self.ways: list[list[bytes]] = [[], []]
        self.said: dict[int, list[int]] = {}
        """By session, all that was sealed."""
        self.heard: dict[int, list[int]] = {}
        self.envelopes: dict[int, int] = {}

    @rule(side=st.sampled_from([0, 1]), words=st.integers(0, 3))
    def say(self, side: int, words: int) -> None:
        half = self.links[side]
        if half.lost:
            if not half.may_begin(self.now):
                return
            half.begin(self.now)
            assert half.session not in self.said, "a session begins once"
            self.said[half.session] = []
        numbers = [self.counter + n + 1 for n in range(words)]
        self.counter += words
        self.said[half.session] += numbers
        self.ways[side].append(encode(half.seal([word(n) for n in numbers], self.now)))

    @precondition(lambda self: any(self.ways))
    @rule(data=st.data())
    def carry(self, data: st.DataObject) -> None:
        side = data.draw(st.sampled_from([n for n in (0, 1) if self.ways[n]]))
        envelope = decode(self.ways[side].pop(0))
        receiver = self.links[1 - side]
        expected = self.envelopes.get(envelope.session, 0) + 1
        known = receiver.heard_session == envelope.session
        heard = receiver.hear(envelope, self.now)
        if heard.begins:
            assert envelope.number == 1
            self.heard[envelope.session] = []
        if heard.begins or (known and envelope.number == expected):
            self.envelopes[envelope.session] = envelope.number
            assert heard.words == envelope.words, "nothing that follows is withheld"
        else:
            assert heard.words == []
            if envelope.number > 1:
                assert receiver.heard_session == 0, "a loss shows with the very next envelope"
        self.heard.setdefault(envelope.session, []).extend(
            w.head for w in heard.words if isinstance(w, Behind)
        )

    @precondition(lambda self: any(self.ways))
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        side = data.draw(st.sampled_from([n for n in (0, 1) if self.ways[n]]))
        self.ways[side].pop(0)

    @rule(side=st.sampled_from([0, 1]))
    def forget_all(self, side: int) -> None:
        """A node makes its half anew; what it had said may still be on its way."""
        self.links[side] = Link(str(side), self.now, self.sessions)

    @rule(seconds=st.sampled_from([0.1, RESTART_AFTER_S, CONTACT_S]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def what_is_heard_is_the_beginning_of_what_was_said(self) -> None:
        for session, heard in self.heard.items():
            assert self.said[session][: len(heard)] == heard

    @invariant()
    def what_is_confirmed_was_heard(self) -> None:
        for half in self.links:
            if half.session and not half.lost:
                assert half.confirmed <= self.envelopes.get(half.session, 0)

    def teardown(self) -> None:
        """When nothing is lost any more, both are in step as soon as patience is over."""
        for way in self.ways:
            way.clear()
        for _ in range(12 + int(RESTART_AFTER_MAX_S / RESTART_AFTER_S)):
            self.now += RESTART_AFTER_S
            for side in (0, 1):
                self.say(side, 1)
            for side in (0, 1):
                while self.ways[side]:
                    envelope = decode(self.ways[side].pop(0))
                    self.links[1 - side].hear(envelope, self.now)
        assert all(half.in_step(self.now) for half in self.links)


LossyBus.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestLossyBus = LossyBus.TestCase


def test_an_envelope_is_small_when_it_only_confirms() -> None:
    a, _ = begun()
    assert len(encode(a.seal([], 0.0))) < 16
    assert msgpack.decode(encode(a.seal([word(1)], 0.0)))[0] == "a"


def test_who_has_left_is_not_in_step_and_nothing_is_begun_for_them() -> None:
    a, b = begun()
    assert a.in_step(0.1)
    a.left = True
    assert not a.in_step(0.1)
    a.lost = True
    assert not a.may_begin(9.0)
    assert b.in_step(0.1), "they may still hear"


def test_a_bus_that_took_nothing_says_nothing_of_how_slow_the_way_is() -> None:
    """As while Redis is away: when it is back, the link is not the one that waits."""
    a, now = link("a"), 0.0
    for _ in range(20):
        assert a.may_begin(now)
        a.begin(now)
        a.seal([word(0)], now)
        a.refuse()
        now += RESTART_AFTER_S
