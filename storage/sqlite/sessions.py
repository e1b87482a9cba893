"""Sessions and their refresh tokens in SQL: functions of a connection. Keeps no state.

A token that was used up is remembered until it would have expired, so that its second use ends the
session, while the table stays as small as the sessions are long.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from storage.records import Session
from storage.sqlite.rows import text_list

_FIELDS = ", ".join(Session.__struct_fields__)


def create(connection: sqlite3.Connection, session: Session) -> None:
    """`Directory.create_session`."""
    fields = Session.__struct_fields__
    connection.execute(
        f"INSERT INTO session ({_FIELDS}) VALUES ({', '.join('?' * len(fields))})",
        [getattr(session, field) for field in fields],
    )


def rotate(
    connection: sqlite3.Connection, token_hash: bytes, new_hash: bytes, now: int, expires: int
) -> Session | None:
    """`Directory.rotate`."""
    used = connection.execute(
        "SELECT session FROM used_token WHERE token_hash = ?", (token_hash,)
    ).fetchone()
    if used:
        connection.execute("UPDATE session SET ended = 1 WHERE id = ?", used)
        return None
    row = connection.execute(
        f"SELECT {_FIELDS} FROM session WHERE token_hash = ? AND expires > ? AND NOT ended",
        (token_hash, now),
    ).fetchone()
    if row is None:
        return None
    session = Session(**dict(zip(Session.__struct_fields__, row, strict=True)))
    connection.execute(
        "INSERT INTO used_token (token_hash, session, expires) VALUES (?, ?, ?)",
        (token_hash, session.id, session.expires),
    )
    session.token_hash = new_hash
    session.expires = expires
    connection.execute(
        "UPDATE session SET token_hash = ?, expires = ? WHERE id = ?",
        (new_hash, expires, session.id),
    )
    return session


def end(connection: sqlite3.Connection, session: str) -> None:
    """`Directory.end_session`."""
    connection.execute("UPDATE session SET ended = 1 WHERE id = ?", (session,))


def ended(connection: sqlite3.Connection, sessions: Iterable[str]) -> dict[str, bool]:
    """Those among these that have ended, each with True."""
    rows = connection.execute(
        "SELECT id FROM session WHERE id IN (SELECT value FROM json_each(?)) AND ended",
        (text_list(sessions),),
    )
    return {id_: True for (id_,) in rows}


def purge(connection: sqlite3.Connection, now: int) -> None:
    """`Directory.purge`."""
    connection.execute("DELETE FROM session WHERE expires < ?", (now,))
    connection.execute(
        "DELETE FROM used_token WHERE expires < ? OR session NOT IN (SELECT id FROM session)",
        (now,),
    )
