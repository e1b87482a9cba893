"""A run over real processes: people talk, things fail, everything heals, and the checker judges."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import trio

from storage.cassandra import open_cassandra, parse_url
from storage.interfaces import Timeline
from storage.names import direct_users
from tests.faults.cluster.site import Site
from tests.faults.cluster.storms import Storm
from tests.helpers.peer import Peer
from tests.histories.checker import Truth, check
from tests.histories.client import Client
from tests.histories.people import Habits, Person
from tests.histories.record import Record

USERS = 6
SECOND_DEVICES = 2
CALM_S = 4.0
SETTLE_S = 120.0
QUIET_S = 15.0
PAGE_ENTRIES = 500


@dataclass
class Result:
    """What a run has shown."""

    seed: int
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    entries: int = 0
    wrong: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """The report."""
        lines = [
            f"# Faults of a real cluster: seed {self.seed}",
            f"{self.faults.total()} faults in {self.seconds:.0f} s; {self.entries} entries stored, "
            f"{self.counts.get('acknowledged', 0)} acknowledged, "
            f"{self.counts.get('live', 0) + self.counts.get('pulled', 0)} delivered; "
            f"**{len(self.wrong) or 'no'} violations**.",
            *(f"- {what}" for what in self.wrong),
            "| fault | times |\n|---|---|\n"
            + "\n".join(f"| {name} | {times} |" for name, times in sorted(self.faults.items())),
            "What clients saw: `" + json.dumps(self.counts, sort_keys=True) + "`",
            "```\n" + "\n".join(self.log) + "\n```",
        ]
        return "\n\n".join(lines) + "\n"


async def run(folder: Path, *, seed: int, faults: int, cassandras: int = 1) -> Result:
    """Start everything, let it fail so often, heal, and judge."""
    site = Site(folder, cassandras=cassandras)
    try:
        await trio.to_thread.run_sync(site.start)
        return await _play(site, seed, faults)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(site.stop)


async def _play(site: Site, seed: int, faults: int) -> Result:
    rng = Random(seed)
    record = Record()
    tokens = await trio.to_thread.run_sync(site.tokens, [f"user{n}" for n in range(USERS)])
    users = [await _user(site, token) for token in tokens]
    groups = await _found(site, tokens[0], users)
    storm = Storm(site, Random(rng.random()), record)
    clients: list[Client] = []
    async with trio.open_nursery() as people:
        acting = trio.CancelScope()
        for index in [*range(USERS), *range(SECOND_DEVICES)]:
            client, person = _person(site, record, rng, users, tokens, index, groups, len(clients))
            clients.append(client)
            people.start_soon(client.run)
            people.start_soon(_act, person, acting)
        await trio.sleep(CALM_S)
        await storm.rage(faults)
        acting.cancel()
        clients[-1].leave_for_good()
        for client in clients[:-1]:
            client.offline_until = 0.0
        with trio.move_on_after(SETTLE_S):
            while not all(_done(client) for client in clients[:-1]):  # noqa: ASYNC110
                await trio.sleep(0.5)
        await trio.sleep(QUIET_S)
        truth = await _truth(site, record, clients)
        result = Result(seed, record.now(), storm.seen, storm.log, record.counts)
        result.wrong = check(record, truth) + site.defects()
        result.entries = sum(len(log) for log in truth.logs.values())
        people.cancel_scope.cancel()
    return result


def _person(
    site: Site,
    record: Record,
    rng: Random,
    users: list[int],
    tokens: list[str],
    index: int,
    groups: list[str],
    number: int,
) -> tuple[Client, Person]:
    user = users[index]
    others = [other for other in users if other != user]
    client = Client(
        record,
        Random(rng.random()),
        [node.dial for node in site.nodes],
        user=user,
        name=f"u{index}.{number}",
        token=tokens[index],
        watch=others,
    )
    habits = Habits(think_s=0.7)
    return client, Person(client, Random(rng.random()), habits, others=others, groups=groups)


async def _act(person: Person, acting: trio.CancelScope) -> None:
    while not acting.cancel_called:
        with trio.move_on_after(1.0):
            await person.run()


def _done(client: Client) -> bool:
    return client.saw.connected and not client.intents and not client.saw.unanswered


async def _user(site: Site, token: str) -> int:
    peer = Peer(await site.nodes[0].dial())
    await peer.hello(token)
    await peer.aclose()
    return peer.user


async def _found(site: Site, token: str, users: list[int]) -> list[str]:
    """Two open groups, one with everybody."""
    peer = Peer(await site.nodes[0].dial())
    await peer.hello(token)
    convs = []
    for history, members in (("all", users[1:]), ("joined", users[1:2])):
        with trio.fail_after(30):
            made = await peer.ok(
                "group.create",
                title=f"with {history}",
                join="open",
                visibility="public",
                history=history,
                members=members,
            )
        convs.append(str(made["conv"]))
    await peer.aclose()
    return convs


async def _truth(site: Site, record: Record, clients: list[Client]) -> Truth:
    convs = {intent.conv for intent in record.intents}
    convs |= {conv for device in record.devices for conv in device.logs}
    settings = parse_url(site.cassandra.url)
    logs: dict[str, list[bytes]] = {}
    members: dict[str, list[int]] = {}
    async with open_cassandra(settings) as store:
        for conv in sorted(convs):
            logs[conv] = await _log(store, conv)
            stored = await store.members(conv, after=0, limit=PAGE_ENTRIES)
            members[conv] = list(direct_users(conv)) or [member.user for member in stored]
    online = {client.user for client in clients if client.saw.connected}
    return Truth(logs=logs, members=members, online=online)


async def _log(store: Timeline, conv: str) -> list[bytes]:
    payloads: list[bytes] = []
    while page := await store.read(conv, after=len(payloads), limit=PAGE_ENTRIES):
        payloads += page
    return payloads
