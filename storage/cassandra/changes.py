"""What follows from an entry: members, groups, memberships, and new states of older entries.

It is written into the entry's own row, and only then, once that row is durable, to the tables that
are read. Whoever takes the log up after a crash does so again. Since all of it carries the entry's
version as its timestamp, once more or late makes no difference.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct, field

from storage.cassandra.log import bucket_of
from storage.cassandra.packing import ROW_BYTES, Part
from storage.cassandra.statements import GROUP_FIELDS, Statements
from storage.interfaces import name_key
from storage.names import direct_users, group_conv
from storage.records import Commit, Group

LISTED_SHARDS = 8
"""Partitions of the list of public groups. Never changed."""


class NewState(Struct, array_like=True, gc=False):
    """A new payload of an entry that was stored before, by the key of its row."""

    seq: int
    version: int
    payload: bytes


class Changes(Struct, array_like=True):
    """All that one commit changes of one conversation beside its new entries and marks.

    `members` maps a user to role and since, or to None where they are gone. `direct`: the users of
    a direct conversation that has its first entry now.
    """

    states: list[NewState] = field(default_factory=list)
    group: Group | None = None
    members: dict[int, tuple[str, int] | None] = field(default_factory=dict)
    direct: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.states or self.group or self.members or self.direct)


encode_changes = msgspec.msgpack.Encoder().encode
decode_changes = msgspec.msgpack.Decoder(Changes).decode


def changes_of(commit: Commit) -> dict[str, Changes]:
    """By conversation, all but new states, whose keys are yet to be looked up."""
    found: dict[str, Changes] = {}
    for conv, user in commit.gone:
        if not direct_users(conv):
            found.setdefault(conv, Changes()).members[user] = None
    for member in commit.members:
        if not direct_users(member.conv):
            place = found.setdefault(member.conv, Changes())
            place.members[member.user] = (member.role, member.since)
    for group in commit.groups:
        found.setdefault(group_conv(group.id), Changes()).group = group
    for append in commit.appends:
        if append.first == 1 and (users := direct_users(append.conv)):
            found.setdefault(append.conv, Changes()).direct = users
    return found


def parts_of(bind: Statements, conv: str, changes: Changes, version: int) -> list[Part]:
    """The writes that make changes of this version seen."""
    parts = [_state(bind, conv, state, version) for state in changes.states]
    if changes.group is not None:
        parts += _group(bind, changes.group, version)
    parts += _members(bind, conv, changes.members.items(), version)
    for user in changes.direct:
        values = (version, "member", 0, False, user, conv)
        parts.append(_part(bind.bind("put_membership", *values), len(conv)))
    return parts


def _state(bind: Statements, conv: str, state: NewState, version: int) -> Part:
    key = (conv, bucket_of(state.seq), state.seq, state.version)
    return _part(bind.bind("revise", version, state.payload, *key), len(state.payload))


def _group(bind: Statements, group: Group, version: int) -> list[Part]:
    values = [getattr(group, name) for name in GROUP_FIELDS]
    key = name_key(group.title)
    listed = group.visibility == "public" and not group.dissolved
    size = sum(len(value) for value in values if isinstance(value, str)) * 4
    return [
        _part(bind.bind("put_group", version, *values, group.id), size),
        _part(
            bind.bind("list_group", version, key, listed, group.id % LISTED_SHARDS, group.id),
            4 * len(key),
        ),
    ]


def _members(
    bind: Statements,
    conv: str,
    members: Iterable[tuple[int, tuple[str, int] | None]],
    version: int,
) -> list[Part]:
    parts = []
    for user, place in members:
        if place is None:
            parts.append(_part(bind.bind("end_member", version, conv, user), len(conv)))
            parts.append(_part(bind.bind("end_membership", version, user, conv), len(conv)))
        else:
            values = (version, *place, False)
            parts.append(_part(bind.bind("put_member", *values, conv, user), len(conv)))
            parts.append(_part(bind.bind("put_membership", *values, user, conv), len(conv)))
    return parts


def _part(statement: Any, size: int) -> Part:
    return Part([statement], size + ROW_BYTES)
