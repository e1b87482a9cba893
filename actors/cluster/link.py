"""Half of the way to another node and back, without I/O: what was lost is noticed, never hidden.

The bus may lose. So each half of a link is a *session*: envelopes numbered from 1, the first of
which begins with the sender's whole state. A receiver that misses a number takes no more of that
session and says so by confirming session 0; the sender then begins a new one. Nothing is sent
again: what matters is in the state that a session begins with, or is asked for anew.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Raw, Struct

from actors.cluster.words import AnyWord, Envelope, Sealed

RESTART_AFTER_S = 0.5
"""A session that was begun is given this long to be confirmed before another is begun; twice as
long after each that never was, since the way may just be slow."""
RESTART_AFTER_MAX_S = 8.0
CONTACT_S = 3.0
"""A peer that has confirmed nothing new for this long is out of contact: nobody waits for it."""


class Heard(Struct):
    """What an envelope brought: words to follow, in order, and whether they begin a session."""

    words: list[AnyWord]
    begins: bool = False


NOTHING = Heard([])


class Link:
    """Times are seconds of a clock that only goes forward, given with each call."""

    __slots__ = (
        "_began_at",
        "_confirmed_at",
        "_me",
        "_patience_s",
        "_refused",
        "_sessions",
        "_waiting_since",
        "confirmed",
        "heard",
        "heard_session",
        "left",
        "lost",
        "number",
        "session",
    )

    def __init__(self, me: str, now: float, sessions: Iterator[int]) -> None:
        """`sessions` gives numbers that no link of this node ever had: the other node may have kept
        its half of an earlier link, and would take a new session for what it knows already."""
        self._me = me
        self._sessions = sessions
        self.session = 0
        self.number = 0
        """Of the last envelope that was sent."""
        self.confirmed = 0
        """Of the last that they have confirmed, in this session."""
        self.lost = True
        """What is said now does not arrive: a new session must begin."""
        self.left = False
        """They have said their last word."""
        self.heard_session = 0
        self.heard = 0
        self._patience_s = RESTART_AFTER_S
        self._refused = False
        self._began_at = now - RESTART_AFTER_S
        self._confirmed_at = now
        self._waiting_since = now

    # What is sent

    def may_begin(self, now: float) -> bool:
        """Whether it is time for a new session."""
        return self.lost and not self.left and now - self._began_at >= self._patience_s

    def begin(self, now: float) -> None:
        """Begin a session; the next envelope must hold the whole state."""
        if self.session and not self.confirmed and not self._refused:
            self._patience_s = min(2 * self._patience_s, RESTART_AFTER_MAX_S)
        self._refused = False
        self.session = next(self._sessions)
        self.number = self.confirmed = 0
        self.lost = False
        self._began_at = now

    def refuse(self) -> None:
        """The bus took an envelope not at all, which says nothing of how slow the way is."""
        self.lost = self._refused = True

    def seal(self, words: list[bytes], now: float) -> Sealed:
        """The next envelope, of encoded words."""
        if self.number == self.confirmed:
            self._waiting_since = now
        self.number += 1
        return Sealed(
            self._me,
            self.session,
            self.number,
            self.heard_session,
            self.heard,
            [Raw(word) for word in words],
        )

    # What is heard

    def hear(self, envelope: Envelope, now: float) -> Heard:
        """Take the next envelope of the other half."""
        follows = envelope.number == (
            self.heard + 1 if envelope.session == self.heard_session else 1
        )
        self._take_confirmation(envelope, now, follows=follows)
        if envelope.session != self.heard_session:
            if envelope.number != 1:
                self.heard_session = self.heard = 0  # its beginning did not come
                return NOTHING
            self.heard_session = envelope.session
            self.heard = 1
            return Heard(envelope.words, begins=True)
        if envelope.number != self.heard + 1:
            if envelope.number > self.heard:
                self.heard_session = self.heard = 0
            return NOTHING
        self.heard += 1
        return Heard(envelope.words)

    def _take_confirmation(self, envelope: Envelope, now: float, *, follows: bool) -> None:
        if self.session and envelope.heard_session == self.session:
            # Not where words are missing that were said before it: what is confirmed is answered.
            if envelope.heard > self.confirmed and follows:
                self.confirmed = envelope.heard
                self._patience_s = RESTART_AFTER_S
                self._waiting_since = now
            self._confirmed_at = now
        elif now - self._began_at >= self._patience_s:
            self.lost = True

    # How it stands

    def in_step(self, now: float) -> bool:
        """Whether what is said arrives, as far as anybody can know."""
        if self.lost or self.left:
            return False
        return self.confirmed > 0 and now - self._confirmed_at < CONTACT_S

    def lag_s(self, now: float) -> float:
        """For how long the oldest unconfirmed envelope has been under way; 0 if there is none."""
        return 0.0 if self.number == self.confirmed else now - self._waiting_since
