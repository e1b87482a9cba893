"""What an entry of a group says of who is a member: from it on, or up to it."""

from __future__ import annotations

from tests.histories.record import Map


def begins_for(entry: Map, user: int) -> bool:
    """Whether the entry is the one that makes the user a member."""
    return _changes(entry, user, "joined", "created")


def ends_for(entry: Map, user: int) -> bool:
    """Whether it is their last one."""
    return _changes(entry, user, "left", "kicked")


def _changes(entry: Map, user: int, *events: str) -> bool:
    if entry["kind"] != "system":
        return False
    body = entry["body"]
    return body["event"] in events and user in body["users"]
