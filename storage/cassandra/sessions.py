"""Sessions and their refresh tokens. Rows have a time to live, so nobody has to remove them.

A token belongs to a session and is good while it is the one in the session's row, which is changed
by conditional writes alone: a token that is known and not there was used up before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import trio

from storage.cassandra.bridge import Bridge
from storage.cassandra.connection import CONDITIONAL, EXACT, READ, WRITE
from storage.cassandra.keys import by_keys
from storage.cassandra.statements import SESSION_FIELDS, Statements
from storage.errors import Unavailable
from storage.records import Session

KEEP_S = 86_400
"""Rows live so much longer than what is in them: clocks of nodes may differ."""
LIFE_MAX_S = 20 * 365 * 86_400
"""The longest time to live of a row that Cassandra takes; a session that lasts longer ends then."""
ENDED_AT_ONCE = 32
"""Sessions of one user that are ended at once; the others wait."""


class Sessions:
    """The part of `storage.interfaces.Directory` that is about sessions."""

    def __init__(self, bridge: Bridge, statements: Statements) -> None:
        self._bridge = bridge
        self._bind = statements.bind
        self._forgotten_ms = 0
        """What expired before is not told any more, though its rows may be there."""

    async def create_session(self, session: Session) -> None:
        """See `Directory.create_session`."""
        token = await self._bridge.one(self._bind("token", session.token_hash), READ)
        if token or await self._stored([session.id]):
            raise ValueError("a session of that id or token exists")
        life = _life_s(session.created, session.expires)
        await self._index(session, life)
        values = [getattr(session, name) for name in SESSION_FIELDS]
        added = self._bind("add_session", *values, life)
        (answer,) = await self._bridge.one(added, CONDITIONAL)
        if not answer["[applied]"]:
            raise ValueError("a session of that id exists")

    async def _stored(self, ids: Collection[str]) -> list[tuple[Session, bool]]:
        """Sessions, each with whether it was ended."""
        return [
            (Session(**dict(zip(SESSION_FIELDS, fields, strict=True))), bool(ended))
            for *fields, ended in await by_keys(self._bridge, self._bind, "sessions", ids)
            if fields[1] is not None
        ]

    async def _index(self, session: Session, life: int) -> None:
        token = (session.token_hash, session.id, session.expires)
        writes = [
            self._bind("add_user_session", session.user, session.id, life),
            self._bind("add_token", *token, life),
        ]
        await self._bridge.all(writes, WRITE)

    async def rotate(
        self, token_hash: bytes, new_hash: bytes, *, now: int, expires: int
    ) -> Session | None:
        """See `Directory.rotate`."""
        rows = await self._bridge.one(self._bind("token", token_hash), READ)
        if not rows:
            return None
        id_, expired = rows[0]
        stored = await self._stored([id_])
        if not stored:
            return None
        session, ended = stored[0]
        if session.token_hash != token_hash:
            if expired >= self._forgotten_ms:
                await self._end(session)
            return None
        if ended or session.expires <= now:
            return None
        session.token_hash, session.expires = new_hash, expires
        if await self._swap(session, token_hash, _life_s(now, expires)):
            return session
        # Somebody was faster with the same token.
        await self._end(session)
        return None

    async def _swap(self, session: Session, old: bytes, life: int) -> bool:
        await self._index(session, life)
        values = [getattr(session, name) for name in SESSION_FIELDS if name != "id"]
        swap = self._bind("rotate_session", life, *values, session.id, old)
        try:
            (answer,) = await self._bridge.one(swap, CONDITIONAL)
        except Unavailable as error:
            if error.applied is False:
                raise
            rows = await self._bridge.one(self._bind("session_token", session.id), EXACT)
            kept = rows[0][0] if rows else None
            if kept == old:
                raise  # Not somebody else's doing: the token is as good as before.
            return bool(kept == session.token_hash)
        return bool(answer["[applied]"])

    async def end_session(self, session: str) -> None:
        """See `Directory.end_session`."""
        await self._end_these([session])

    async def end_all(self, user: int) -> None:
        """End all sessions of a user."""
        rows = await self._bridge.one(self._bind("user_sessions", user), READ)
        ids = [id_ for (id_,) in rows]
        for start in range(0, len(ids), ENDED_AT_ONCE):
            await self._end_these(ids[start : start + ENDED_AT_ONCE])

    async def _end_these(self, ids: Collection[str]) -> None:
        stored = [session for session, ended in await self._stored(ids) if not ended]
        await self._bridge.all([self._ending(session) for session in stored], CONDITIONAL)

    def _ending(self, session: Session) -> Any:
        return self._bind("end_session", _life_s(session.created, session.expires), session.id)

    async def _end(self, session: Session) -> None:
        await self._bridge.one(self._ending(session), CONDITIONAL)

    async def ended_sessions(self, sessions: Iterable[str]) -> set[str]:
        """See `Directory.ended_sessions`."""
        stored = await self._stored(set(sessions))
        await trio.lowlevel.checkpoint()
        return {
            session.id
            for session, ended in stored
            if ended and session.expires >= self._forgotten_ms
        }

    async def purge(self, *, now: int) -> None:
        """See `Directory.purge`. Cassandra removes the rows in its own time."""
        await trio.lowlevel.checkpoint()
        self._forgotten_ms = max(self._forgotten_ms, now)


def _life_s(from_ms: int, to_ms: int) -> int:
    return max(1, min(LIFE_MAX_S, (to_ms - from_ms) // 1000 + KEEP_S))
