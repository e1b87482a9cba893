"""What is in the store at the end, and whether each node tells it as it is."""

from __future__ import annotations

from collections.abc import Mapping

import msgpack

from storage.cassandra import open_cassandra, parse_url
from storage.interfaces import Store
from storage.names import direct_users
from tests.faults.cluster.machines import Machines
from tests.helpers.peer import Peer
from tests.histories.checker import Truth
from tests.histories.record import Map

PAGE = 200
MEMBERS_MAX = 1_000
"""More than any group of a story has."""
COMPARED = ("seq", "from", "ts", "kind", "body", "ref", "edited_ts", "recalled")


async def truth_of(
    machines: Machines, convs: list[str], online: set[int], private: list[str]
) -> Truth:
    """All logs, as they are stored, without any node's help."""
    async with open_cassandra(parse_url(machines.cassandra.url)) as store:
        logs = {conv: await _log(store, conv) for conv in convs}
        members = {
            conv: list(direct_users(conv))
            or [member.user for member in await store.members(conv, after=0, limit=MEMBERS_MAX)]
            for conv in convs
        }
    return Truth(logs=logs, members=members, online=online, private=private)


async def _log(store: Store, conv: str) -> list[bytes]:
    log: list[bytes] = []
    while page := await store.read(conv, after=len(log), limit=PAGE):
        log += page
    return log


async def read_back(truth: Truth, peers: Mapping[int, Peer]) -> list[str]:
    """What is wrong in what one node tells these users, each on a connection of its own to it."""
    wrong = []
    for conv, payloads in truth.logs.items():
        stored = [_compared(msgpack.unpackb(payload)) for payload in payloads]
        reader = next((user for user in truth.members[conv] if user in peers), None)
        if reader is None or not stored:
            continue
        told = [_compared(entry) for entry in await _history(peers[reader], conv)]
        first = told[0]["seq"] if told else len(stored) + 1
        if told != stored[first - 1 :]:
            wrong.append(f"{conv}: the history of {reader} from {first} on is not what is stored")
        elif first > 1 and not conv.startswith("g/"):
            wrong.append(f"{conv}: the history of {reader} begins with {first}")
    wrong += await _presence(truth, peers)
    return wrong


async def _history(peer: Peer, conv: str) -> list[Map]:
    entries: list[Map] = []
    after = 0
    while True:
        page = await peer.ok("history", conv=conv, after=after, limit=PAGE)
        entries += page["entries"]
        if not page["entries"] or entries[-1]["seq"] >= page["head"]:
            return entries
        after = entries[-1]["seq"]


async def _presence(truth: Truth, peers: Mapping[int, Peer]) -> list[str]:
    asker, peer = next(iter(peers.items()))
    users = sorted({user for members in truth.members.values() for user in members} - {asker})
    told = (await peer.ok("presence.get", users=users))["users"]
    assert truth.online is not None
    return [
        f"{state['user']} is told to be {'on' if state['online'] else 'off'}line"
        for state in told
        if state["online"] != (state["user"] in truth.online)
    ]


def _compared(entry: Map) -> Map:
    return {name: entry.get(name) for name in COMPARED}
