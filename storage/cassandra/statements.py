"""Every statement that runs on a store, prepared once a session. No rules, no I/O of its own.

Writes of the timeline carry `USING TIMESTAMP`: their version, so that the later one wins whatever
the order in which they land. The others are conditional, or say the same of a key however often
they do: nowhere is it a clock that decides (but for the row of `probe`, which nobody reads).
"""

from __future__ import annotations

import re
from typing import Any

from cassandra.cluster import Session

from storage.cassandra.binding import Binder
from storage.records import Group, User
from storage.records import Session as LoginSession

GROUP_FIELDS = tuple(name for name in Group.__struct_fields__ if name != "id")
USER_FIELDS = tuple(name for name in User.__struct_fields__ if name not in ("id", "last_seen"))
CHANGEABLE = tuple(name for name in USER_FIELDS if name != "name")
SESSION_FIELDS = LoginSession.__struct_fields__
_NODE_KEEP_S = 86_400
"""A record that nobody has written for so long vanishes."""


def _columns(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _marks(names: tuple[str, ...]) -> str:
    return ", ".join("?" * len(names))


def _set(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}" = ?' for name in names)


_SETTINGS = "muted, pinned, hidden, nickname, draft"

CQL = {
    # Logs
    "add_row": "INSERT INTO timeline (conv, bucket, seq, version, payload, ts, changes)"
    " VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
    "revise": "UPDATE timeline USING TIMESTAMP ? SET payload = ?"
    " WHERE conv = ? AND bucket = ? AND seq = ? AND version = ?",
    "page": "SELECT seq, version, payload FROM timeline"
    " WHERE conv = ? AND bucket = ? AND seq >= ? AND seq <= ?",
    "versions": "SELECT seq, version FROM timeline WHERE conv = ? AND bucket = ? AND seq = ?",
    # With the payload: a read repairs only what it asks for, and this one decides which rows count.
    "beyond": "SELECT seq, version, ts, changes, payload FROM timeline"
    " WHERE conv = ? AND bucket = ? AND seq > ?",
    # Heads
    "head": "SELECT seq, ts, version, open, fence FROM heads"
    " WHERE shard = ? AND slot = ? AND conv = ?",
    "heads": "SELECT conv, seq, ts, version, open FROM heads WHERE shard = ? AND (slot, conv) IN ?",
    # Within one slot of one partition, so that filtering reads no more than what is asked about.
    "open_heads": "SELECT conv FROM heads WHERE shard = ? AND slot = ? AND conv > ?"
    " AND open = true LIMIT ? ALLOW FILTERING",
    "put_head": "UPDATE heads USING TIMESTAMP ? SET seq = ?, ts = ?, version = ?, open = ?"
    " WHERE shard = ? AND slot = ? AND conv = ?",
    "put_fence": "UPDATE heads USING TIMESTAMP ? SET fence = ?"
    " WHERE shard = ? AND slot = ? AND conv = ?",
    # Members and marks
    "put_member": "UPDATE members USING TIMESTAMP ? SET role = ?, since = ?, gone = ?"
    " WHERE conv = ? AND user = ?",
    "put_membership": "UPDATE memberships USING TIMESTAMP ? SET role = ?, since = ?, gone = ?"
    " WHERE user = ? AND conv = ?",
    "end_member": "UPDATE members USING TIMESTAMP ? SET gone = true WHERE conv = ? AND user = ?",
    "end_membership": "UPDATE memberships USING TIMESTAMP ? SET gone = true"
    " WHERE user = ? AND conv = ?",
    "all_members": "SELECT user, role, since, gone FROM members WHERE conv = ?",
    "some_members": "SELECT user, role, since FROM members WHERE conv = ? AND user > ?"
    " AND gone = false LIMIT ? ALLOW FILTERING",
    "count_members": "SELECT count(*) FROM members WHERE conv = ? AND gone = false ALLOW FILTERING",
    "memberships": f"SELECT conv, role, since, gone, read, delivered, {_SETTINGS}"
    " FROM memberships WHERE user = ?",
    "settings": f"SELECT {_SETTINGS}, writetime(muted) FROM memberships"
    " WHERE user = ? AND conv = ?",
    "put_settings": "UPDATE memberships USING TIMESTAMP ? SET muted = ?, pinned = ?, hidden = ?,"
    " nickname = ?, draft = ? WHERE user = ? AND conv = ?",
    "put_mark": "UPDATE marks USING TIMESTAMP ? SET read = ?, delivered = ?"
    " WHERE conv = ? AND user = ?",
    "put_own_mark": "UPDATE memberships USING TIMESTAMP ? SET read = ?, delivered = ?"
    " WHERE user = ? AND conv = ?",
    "all_marks": "SELECT user, read, delivered, writetime(read) FROM marks WHERE conv = ?",
    "some_marks": "SELECT user, read, delivered FROM marks WHERE conv = ? AND user IN ?",
    # Groups
    "put_group": f"UPDATE groups USING TIMESTAMP ? SET {_set(GROUP_FIELDS)} WHERE id = ?",
    "groups": f"SELECT id, {_columns(GROUP_FIELDS)} FROM groups WHERE id IN ?",
    "list_group": "UPDATE listed_groups USING TIMESTAMP ? SET title_key = ?, listed = ?"
    " WHERE shard = ? AND id = ?",
    "listed_groups": "SELECT id, title_key, listed FROM listed_groups"
    " WHERE shard = ? AND id > ? LIMIT ?",
    # Ids
    "block": "SELECT next FROM id_blocks WHERE kind = ?",
    "first_block": "INSERT INTO id_blocks (kind, next) VALUES (?, ?) IF NOT EXISTS",
    "next_block": "UPDATE id_blocks SET next = ? WHERE kind = ? IF next = ?",
    # Accounts
    "users": f"SELECT id, {_columns(USER_FIELDS)} FROM users WHERE id IN ?",
    "password": "SELECT name, generation, password_hash FROM users WHERE id = ?",
    "add_user": f"UPDATE users SET {_set(USER_FIELDS)}, password_hash = ? WHERE id = ?"
    " IF name = null AND void = null",
    "void_user": "UPDATE users SET void = true WHERE id = ? IF name = null",
    "change_user": f"UPDATE users SET {_set(CHANGEABLE)} WHERE id = ? IF name = ?",
    "set_password": "UPDATE users SET password_hash = ?, generation = ? WHERE id = ?"
    " IF generation = ?",
    "last_seen": "SELECT user, ts FROM last_seen WHERE user IN ?",
    "put_last_seen": "UPDATE last_seen USING TIMESTAMP ? SET ts = ? WHERE user = ?",
    "claim_name": "INSERT INTO users_by_name (name_key, id) VALUES (?, ?) IF NOT EXISTS",
    "retake_name": "UPDATE users_by_name SET id = ? WHERE name_key = ? IF id = ?",
    "release_name": "DELETE FROM users_by_name WHERE name_key = ? IF id = ?",
    "by_name": "SELECT name_key, id FROM users_by_name WHERE name_key IN ?",
    "add_prefix": "INSERT INTO name_prefixes (kind, prefix) VALUES (0, ?)",
    "prefixes": "SELECT prefix FROM name_prefixes WHERE kind = 0 AND prefix >= ? LIMIT ?",
    "add_name": "INSERT INTO names (prefix, name_key, id) VALUES (?, ?, ?)",
    "names": "SELECT name_key, id FROM names WHERE prefix = ? AND name_key >= ? LIMIT ?",
    "names_after": "SELECT name_key, id FROM names WHERE prefix = ?"
    " AND (name_key, id) > (?, ?) LIMIT ?",
    "add_id": "INSERT INTO user_ids (bucket, id) VALUES (?, ?)",
    "ids": "SELECT id FROM user_ids WHERE bucket = ? AND id > ? LIMIT ?",
    # Sessions
    "add_session": f"INSERT INTO sessions ({_columns(SESSION_FIELDS)}, ended)"
    f" VALUES ({_marks(SESSION_FIELDS)}, false) IF NOT EXISTS USING TTL ?",
    "session_token": "SELECT token_hash FROM sessions WHERE id = ?",
    "rotate_session": f"UPDATE sessions USING TTL ? SET"
    f" {_set(tuple(n for n in SESSION_FIELDS if n != 'id'))}, ended = false WHERE id = ?"
    " IF token_hash = ? AND ended = false",
    "end_session": "UPDATE sessions USING TTL ? SET ended = true WHERE id = ? IF EXISTS",
    "sessions": f"SELECT {_columns(SESSION_FIELDS)}, ended FROM sessions WHERE id IN ?",
    "add_user_session": "INSERT INTO sessions_by_user (user, id) VALUES (?, ?) USING TTL ?",
    "user_sessions": "SELECT id FROM sessions_by_user WHERE user = ?",
    "add_token": "INSERT INTO tokens (token_hash, session, expires) VALUES (?, ?, ?) USING TTL ?",
    "token": "SELECT session, expires FROM tokens WHERE token_hash = ?",
    # Nodes and slots
    "first_beat": "INSERT INTO nodes (incarnation, beat, record) VALUES (?, ?, ?)"
    f" IF NOT EXISTS USING TTL {_NODE_KEEP_S}",
    "next_beat": f"UPDATE nodes USING TTL {_NODE_KEEP_S} SET beat = ?, record = ?"
    " WHERE incarnation = ? IF beat = ?",
    "remove_node": "DELETE FROM nodes WHERE incarnation = ? IF beat = ?",
    "node": "SELECT beat FROM nodes WHERE incarnation = ?",
    "nodes": "SELECT record FROM nodes",
    "slots": "SELECT slot, owner, epoch FROM slots",
    "slot": "SELECT owner, epoch FROM slots WHERE slot = ?",
    "first_claim": "INSERT INTO slots (slot, owner, epoch) VALUES (?, ?, ?) IF NOT EXISTS",
    "next_claim": "UPDATE slots SET owner = ?, epoch = ? WHERE slot = ? IF epoch = ?",
    "agree": "INSERT INTO agreed (name, value) VALUES (?, ?) IF NOT EXISTS",
    "agreed": "SELECT value FROM agreed WHERE name = ?",
    "probe": "UPDATE probe SET at = ? WHERE kind = 0",
}

_TABLE = re.compile(r"\b(FROM|INTO|UPDATE) (\w+)")


class Statements:
    """The prepared statements, by their names in `CQL`; each is bound by calling `bind`."""

    def __init__(self, session: Session, keyspace: str) -> None:
        """Prepares all of them; blocks."""
        self.binders = {}
        for name, cql in CQL.items():
            statement = session.prepare(_TABLE.sub(rf"\1 {keyspace}.\2", cql))
            # What is not conditional gives the same result however often it is run.
            statement.is_idempotent = " IF " not in cql
            statement.fetch_size = None
            self.binders[name] = Binder(statement)

    def bind(self, name: str, *values: Any) -> Any:
        """A statement of `CQL` with its values, ready to be run."""
        return self.binders[name].bind(values)
