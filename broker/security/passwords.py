"""Passwords: argon2id in worker threads, so many at once and no more.

The event loop never hashes. Beyond the bounds a login is refused at once instead of waiting behind
a queue that no client would outlast. Nothing here keeps a password or logs one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import trio
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import HashingError, InvalidHashError, VerificationError, VerifyMismatchError

from broker.config import Passwords as Settings
from broker.wire.errors import Code, Refusal

BUSY_AFTER_MS = 1_000
"""When a refused client may try again."""

T = TypeVar("T")


class Verdict(NamedTuple):
    """`good`: the password is right. `rehash`: its hash at today's cost, where it should change."""

    good: bool
    rehash: str | None = None


class Statistics(NamedTuple):
    """Passwords in work and waiting, now."""

    hashing: int
    waiting: int


class Passwords:
    """Hashes and verifies, at most `settings.parallel` at once, `settings.queue` waiting.

    Each hash takes `settings.memory_kib` of memory while it is worked on. Both methods raise
    `Refusal(unavailable)` with `after_ms` when too many wait or memory is short.
    """

    def __init__(self, settings: Settings) -> None:
        self._hasher = PasswordHasher(
            time_cost=settings.passes, memory_cost=settings.memory_kib, parallelism=1
        )
        self._limiter = trio.CapacityLimiter(settings.parallel)
        self._queue = settings.queue
        self._nobodys = self._hasher.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """The hash to store, in argon2's own notation."""
        return await self._in_thread(lambda: self._hasher.hash(_prepared(password)))

    async def verify(self, password: str, stored: str | None) -> Verdict:
        """Compare with a stored hash.

        None, for an unknown user or one without a password, takes as long as any other and is
        never good, so that the time of the answer does not tell which names exist.
        """
        return await self._in_thread(lambda: self._verify(_prepared(password), stored))

    def statistics(self) -> Statistics:
        """How busy it is."""
        now = self._limiter.statistics()
        return Statistics(hashing=now.borrowed_tokens, waiting=now.tasks_waiting)

    def _verify(self, password: bytes, stored: str | None) -> Verdict:
        known = stored if stored is not None and _is_hash(stored) else None
        try:
            self._hasher.verify(known or self._nobodys, password)
        except VerifyMismatchError:
            return Verdict(good=False)
        if known is None:
            return Verdict(good=False)
        outdated = self._hasher.check_needs_rehash(known)
        return Verdict(good=True, rehash=self._hasher.hash(password) if outdated else None)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        now = self._limiter.statistics()
        if now.tasks_waiting >= self._queue and now.borrowed_tokens >= now.total_tokens:
            raise Refusal(Code.UNAVAILABLE, "too many logins at once", after_ms=BUSY_AFTER_MS)
        try:
            return await trio.to_thread.run_sync(work, limiter=self._limiter)
        except (HashingError, VerificationError) as error:
            raise Refusal(
                Code.UNAVAILABLE, "passwords cannot be checked now", after_ms=BUSY_AFTER_MS
            ) from error


def _is_hash(stored: str) -> bool:
    try:
        extract_parameters(stored)
    except InvalidHashError:
        return False
    return True


def _prepared(password: str) -> bytes:
    """The same bytes for the same typed password, however a keyboard composes its accents."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
