"""Writing a commit: chunks, revisions, groups, members and marks, all in the writer's thread.

Nothing is read back that is already known: the number and the head of every conversation lately
written to are remembered, checked against the index on first use, and forgotten whenever a
transaction fails.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from storage.interfaces import name_key
from storage.names import direct_users, group_conv
from storage.records import Append, Commit, Group, Member, Revision, Settings
from storage.sqlite.chunks import CHUNK_MAX_BYTES, CHUNK_MAX_ENTRIES, split
from storage.sqlite.pieces import Piece, Pieces
from storage.sqlite.rows import Insert, text_list

KNOWN_CONVERSATIONS_MAX = 100_000
"""About 20 MB. When more are in use all are forgotten, which costs one lookup each."""

_CONVERSATIONS = Insert("conversation (id, name)", 2)
_MEMBERS = Insert(
    "member (user, conv, role, since)",
    4,
    "ON CONFLICT DO UPDATE SET role = excluded.role, since = excluded.since",
)
_MARKS = Insert(
    "mark (conv, user, read, delivered)",
    4,
    "ON CONFLICT DO UPDATE SET read = max(read, excluded.read),"
    " delivered = max(delivered, excluded.delivered)",
)
_KNOWN = """
    SELECT j.value, c.id, max(
        coalesce((SELECT max(last) FROM chunk WHERE conv = c.id), 0),
        coalesce((SELECT max(last) FROM recent WHERE conv = c.id), 0))
    FROM json_each(?) AS j JOIN conversation AS c ON c.name = j.value
"""
_GROUP_FIELDS = tuple(name for name in Group.__struct_fields__ if name != "id")
_GROUP = f"""
    INSERT INTO talk_group (id, conv, title_key, {", ".join(f'"{f}"' for f in _GROUP_FIELDS)})
    VALUES ({", ".join("?" * (len(_GROUP_FIELDS) + 3))})
    ON CONFLICT (id) DO UPDATE SET title_key = excluded.title_key,
    {", ".join(f'"{f}" = excluded."{f}"' for f in _GROUP_FIELDS)}
"""
_SETTING_FIELDS = ("muted", "pinned", "hidden", "nickname", "draft")
_SETTING = f"""
    INSERT OR REPLACE INTO setting (user, conv, {", ".join(_SETTING_FIELDS)})
    VALUES (?, ?, {", ".join("?" * len(_SETTING_FIELDS))})
"""


class Appender:
    """Applies commits on the writer's connection, in its thread."""

    def __init__(self) -> None:
        self._known: dict[str, list[int]] = {}
        """Conversation: its number in the database and its head."""
        self._pieces = Pieces()

    def forget(self) -> None:
        """Trust nothing that is remembered."""
        self._known.clear()
        self._pieces.forget()

    def chore(self) -> Callable[[sqlite3.Connection], None] | None:
        """What should be done between two transactions, if anything."""
        return self._pieces.merge if self._pieces.merge_is_due else None

    def commit(self, connection: sqlite3.Connection, commit: Commit) -> None:
        """Apply all of it. Raises `ValueError` where it does not fit what is stored."""
        numbers = self.numbers(connection, _conversations(commit))
        if commit.appends:
            self._append(connection, commit.appends)
        for revision in commit.revisions:
            conv, seq = revision.conv, revision.seq
            number = numbers[conv][0]
            if seq < 1 or not self._pieces.revise(connection, number, seq, revision.payload):
                raise ValueError(f"{conv}: no entry {seq} to revise")
        for group in commit.groups:
            _put_group(connection, group, numbers[group_conv(group.id)][0])
        self._change_members(connection, commit)
        if commit.marks:
            marks = [(numbers[m.conv][0], m.user, m.read, m.delivered) for m in commit.marks]
            _MARKS.run(connection, marks)

    def put_settings(self, connection: sqlite3.Connection, settings: Settings) -> None:
        """`Timeline.put_settings`."""
        number = self.numbers(connection, [settings.conv])[settings.conv][0]
        values = [getattr(settings, field) for field in _SETTING_FIELDS]
        connection.execute(_SETTING, (settings.user, number, *values))

    def numbers(self, connection: sqlite3.Connection, convs: Iterable[str]) -> dict[str, list[int]]:
        """[number, head] of each conversation; unknown ones are numbered now."""
        known = self._known
        missing = {conv for conv in convs if conv not in known}
        if missing:
            if len(known) + len(missing) > KNOWN_CONVERSATIONS_MAX:
                known.clear()
                missing = set(convs)
            for name, number, head in connection.execute(_KNOWN, (text_list(missing),)):
                known[name] = [number, head]
            new = sorted(conv for conv in missing if conv not in known)
            if new:
                self._number(connection, new)
        return known

    def _number(self, connection: sqlite3.Connection, convs: list[str]) -> None:
        for conv in convs:
            if "\0" in conv:
                raise ValueError("the name of a conversation has no NUL")
        (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM conversation").fetchone()
        rows = list(enumerate(convs, last + 1))
        _CONVERSATIONS.run(connection, rows)
        for number, conv in rows:
            self._known[conv] = [number, 0]

    def _append(self, connection: sqlite3.Connection, appends: list[Append]) -> None:
        known = self._known
        pieces: list[Piece] = []
        begun = []
        for append in appends:
            conv, first, payloads = append.conv, append.first, append.payloads
            place = known[conv]
            number, head = place
            if first != head + 1 or not payloads:
                raise ValueError(
                    f"{conv}: {len(payloads)} entries from {first} on do not follow the head {head}"
                )
            if head == 0:
                begun.append(conv)
            place[1] = head + len(payloads)
            data = b"".join(payloads)
            if len(payloads) <= CHUNK_MAX_ENTRIES and len(data) <= CHUNK_MAX_BYTES:
                pieces.append((number, first, place[1], append.ts, data))
            else:
                pieces += [(number, a, b, append.ts, part) for a, b, part in split(first, payloads)]
        self._pieces.insert(connection, pieces)
        members = [
            (user, known[conv][0], "member", 0) for conv in begun for user in direct_users(conv)
        ]
        _MEMBERS.run(connection, members)

    def _change_members(self, connection: sqlite3.Connection, commit: Commit) -> None:
        known = self._known
        for conv, user in commit.gone:
            if not direct_users(conv):
                connection.execute(
                    "DELETE FROM member WHERE user = ? AND conv = ?", (user, known[conv][0])
                )
        rows = [
            (member.user, known[member.conv][0], member.role, member.since)
            for member in commit.members
            if not direct_users(member.conv)
        ]
        _MEMBERS.run(connection, rows)


def _conversations(commit: Commit) -> list[str]:
    records: list[Append | Revision | Member | Any] = [
        *commit.appends,
        *commit.revisions,
        *commit.members,
        *commit.marks,
    ]
    return [
        *(record.conv for record in records),
        *(conv for conv, _ in commit.gone),
        *(group_conv(group.id) for group in commit.groups),
    ]


def _put_group(connection: sqlite3.Connection, group: Group, number: int) -> None:
    values = [getattr(group, field) for field in _GROUP_FIELDS]
    connection.execute(_GROUP, (group.id, number, name_key(group.title), *values))
