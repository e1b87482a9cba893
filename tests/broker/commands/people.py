"""Small things that the stories of this folder are told with."""

from __future__ import annotations

from itertools import count
from typing import Any

from trio.testing import wait_all_tasks_blocked

from tests.helpers.peer import Map, Peer

QUIET_S = 0.003
"""With nothing to do for this long, all that was said has been heard."""

_keys = count(1)


async def say(peer: Peer, conv: str, text: str, **fields: Any) -> int:
    """Send a text under a new key; its seq."""
    key = f"k{next(_keys)}"
    reply = await peer.ok("send", conv=conv, key=key, kind="text", body=text, **fields)
    return int(reply["seq"])


async def say_to(peer: Peer, other: int, text: str) -> str:
    """Send a text to a user; the conversation."""
    key = f"k{next(_keys)}"
    reply = await peer.ok("send", to={"user": other}, key=key, kind="text", body=text)
    return str(reply["conv"])


async def heard(peer: Peer) -> list[Map]:
    """The events that have reached this connection, up to now and since the last time."""
    await wait_all_tasks_blocked(QUIET_S)  # words between the nodes of a cluster are on their way
    await peer.ok("ping")
    events = list(peer.events)
    peer.events.clear()
    return events


async def entries_heard(peer: Peer) -> list[Map]:
    """Of these, the entries of logs."""
    return [event for event in await heard(peer) if event["t"] == "msg"]


def seqs(entries: list[Map]) -> list[int]:
    return [entry["seq"] for entry in entries]
