"""Reading what surrounds the logs: members, groups, marks and settings. Never writes."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from storage.interfaces import name_key
from storage.names import direct_members, direct_users
from storage.records import Group, Head, Loaded, Mark, Member, Membership, Settings
from storage.sqlite import history
from storage.sqlite.rows import int_list, text_list

R = TypeVar("R")

_GROUP_FIELDS = ", ".join(f'g."{field}"' for field in Group.__struct_fields__)
_COUNT = "(SELECT count(*) FROM member AS m WHERE m.conv = g.conv)"
_OF_THESE = "json_each(?) AS j JOIN conversation AS c ON c.name = j.value"

_LOADED_MEMBERS = f"""
    SELECT c.name, m.user, m.role, m.since
    FROM {_OF_THESE} JOIN member AS m ON m.conv = c.id ORDER BY m.conv, m.user
"""
_LOADED_MARKS = f"""
    SELECT c.name, k.user, k.read, k.delivered
    FROM {_OF_THESE} JOIN mark AS k ON k.conv = c.id ORDER BY k.conv, k.user
"""
_LOADED_GROUPS = f"""
    SELECT c.name, {_GROUP_FIELDS}
    FROM {_OF_THESE} JOIN talk_group AS g ON g.conv = c.id
"""
_EXISTING = "SELECT id FROM user WHERE id IN (SELECT value FROM json_each(?))"
_MEMBERS = """
    SELECT user, role, since FROM member
    WHERE conv = (SELECT id FROM conversation WHERE name = ?) AND user > ?
    ORDER BY user LIMIT ?
"""
_GROUPS = f"""
    SELECT {_GROUP_FIELDS}, {_COUNT} FROM talk_group AS g
    WHERE g.id IN (SELECT value FROM json_each(?))
"""
_FIND_GROUPS = f"""
    SELECT {_GROUP_FIELDS}, {_COUNT} FROM talk_group AS g
    WHERE g.id > ? AND g.visibility = 'public' AND g.dissolved = 0
      AND (? = '' OR instr(g.title_key, ?) > 0)
    ORDER BY g.id LIMIT ?
"""
_SETTING_FIELDS = "s.muted, s.pinned, s.hidden, s.nickname, s.draft"
_SETTING = f"""
    SELECT {_SETTING_FIELDS} FROM setting AS s
    WHERE s.user = ? AND s.conv = (SELECT id FROM conversation WHERE name = ?)
"""
_MEMBERSHIPS = f"""
    SELECT c.name, m.role, m.since, h.last, h.ts, k.last, k.ts, r.read, r.delivered,
           g.title, g.avatar, g.history, {_SETTING_FIELDS}
    FROM member AS m
    JOIN conversation AS c ON c.id = m.conv
    LEFT JOIN recent AS h
      ON h.id = (SELECT id FROM recent WHERE conv = m.conv ORDER BY last DESC LIMIT 1)
    LEFT JOIN chunk AS k
      ON k.id = (SELECT id FROM chunk WHERE conv = m.conv ORDER BY last DESC LIMIT 1)
    LEFT JOIN mark AS r ON r.conv = m.conv AND r.user = m.user
    LEFT JOIN setting AS s ON s.user = m.user AND s.conv = m.conv
    LEFT JOIN talk_group AS g ON g.conv = m.conv
    WHERE m.user = ?
"""


def load(connection: sqlite3.Connection, wanted: list[tuple[str, int]]) -> dict[Any, Loaded]:
    """`Timeline.load` for (conv, tail) pairs, set by set: many cost little more than one."""
    convs = list({conv for conv, _ in wanted})
    names = text_list(convs)
    heads = history.heads(connection, convs)
    members = _by_conv(
        (conv, Member(conv=conv, user=user, role=role, since=since))
        for conv, user, role, since in connection.execute(_LOADED_MEMBERS, (names,))
    )
    marks = _by_conv(
        (conv, Mark(conv=conv, user=user, read=read, delivered=delivered))
        for conv, user, read, delivered in connection.execute(_LOADED_MARKS, (names,))
    )
    groups = {row[0]: _group(row[1:]) for row in connection.execute(_LOADED_GROUPS, (names,))}
    users = {user for conv in convs for user in direct_users(conv)}
    existing = {id_ for (id_,) in connection.execute(_EXISTING, (int_list(users),))}
    return {
        (conv, tail): Loaded(
            conv=conv,
            head=heads.get(conv, Head()),
            tail=history.read(connection, conv, None, None, tail) if conv in heads else [],
            members=direct_members(conv) or members.get(conv, []),
            marks=marks.get(conv, []),
            group=groups.get(conv),
            missing_users=[user for user in direct_users(conv) if user not in existing],
        )
        for conv, tail in wanted
    }


def members(connection: sqlite3.Connection, conv: str, after: int, limit: int) -> list[Member]:
    """`Timeline.members`."""
    if direct := direct_members(conv):
        return [member for member in direct if member.user > after][: max(0, limit)]
    rows = connection.execute(_MEMBERS, (conv, after, max(0, limit)))
    return [Member(conv=conv, user=user, role=role, since=since) for user, role, since in rows]


def memberships(connection: sqlite3.Connection, user: int) -> list[Membership]:
    """`Timeline.memberships`."""
    return [
        Membership(
            conv=conv,
            role=role,
            since=since,
            head=max(
                Head(seq=recent or 0, ts=recent_ts or 0),
                Head(seq=seq or 0, ts=ts or 0),
                key=lambda head: head.seq,
            ),
            read=read or 0,
            delivered=delivered or 0,
            settings=None if setting[0] is None else _settings(conv, user, setting),
            title=title or "",
            avatar=avatar or "",
            history=shown or "all",
        )
        for (
            conv,
            role,
            since,
            recent,
            recent_ts,
            seq,
            ts,
            read,
            delivered,
            title,
            avatar,
            shown,
            *setting,
        ) in connection.execute(_MEMBERSHIPS, (user,))
    ]


def groups(connection: sqlite3.Connection, ids: Iterable[int]) -> dict[int, tuple[Group, int]]:
    """`Timeline.groups`."""
    rows = connection.execute(_GROUPS, (int_list(ids),))
    return {row[0]: (_group(row[:-1]), row[-1]) for row in rows}


def find_groups(
    connection: sqlite3.Connection, query: str, after: int, limit: int
) -> list[tuple[Group, int]]:
    """`Timeline.find_groups`."""
    key = name_key(query)
    rows = connection.execute(_FIND_GROUPS, (after, key, key, max(0, limit)))
    return [(_group(row[:-1]), row[-1]) for row in rows]


def settings(connection: sqlite3.Connection, user: int, conv: str) -> Settings | None:
    """`Timeline.settings`."""
    row = connection.execute(_SETTING, (user, conv)).fetchone()
    return None if row is None else _settings(conv, user, row)


def _settings(conv: str, user: int, row: Sequence[Any]) -> Settings:
    muted, pinned, hidden, nickname, draft = row
    return Settings(
        conv=conv,
        user=user,
        muted=bool(muted),
        pinned=bool(pinned),
        hidden=hidden,
        nickname=nickname,
        draft=draft,
    )


def _group(row: Sequence[Any]) -> Group:
    return Group(**dict(zip(Group.__struct_fields__, row, strict=True)))


def _by_conv(pairs: Iterable[tuple[str, R]]) -> dict[str, list[R]]:
    found: defaultdict[str, list[R]] = defaultdict(list)
    for conv, record in pairs:
        found[conv].append(record)
    return found
