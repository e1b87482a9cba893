"""`kill -9` under load, again and again: what was acknowledged is there, once, in order.

`PARLEY_KILLS` kills (default 30) at moments drawn from `PARLEY_KILLS_SEED` (default 1).
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

import trio

from tests.broker.cli.running import Broker, parley
from tests.broker.cli.running import broker as running
from tests.faults.publisher import Publisher
from tests.helpers.peer import open_tcp

KILLS = int(os.environ.get("PARLEY_KILLS", "30"))
SEED = int(os.environ.get("PARLEY_KILLS_SEED", "1"))
NAMES = ["ann", "bob", "cid", "dot"]
ANSWERS_MAX = 600
"""A broker is killed after one to this many answers of its life."""
PATIENCE_S = 30

Log = list[dict[str, Any]]


def tcp_address(broker: Broker) -> tuple[str, int]:
    found = re.search(r"TCP +(\S+):(\d+)", broker.greeting)
    assert found, broker.greeting
    return found[1], int(found[2])


async def prepare(data: Path) -> tuple[list[str], list[str]]:
    """Tokens of all users, and the conversations that they share: a group and a direct one."""
    with running(data) as broker:
        tokens = parley("token", "--data", data, "--create", *NAMES).stdout.split()
        peers = [await open_tcp(*tcp_address(broker)) for _ in tokens]
        users = [(await peer.hello(t))["user"] for peer, t in zip(peers, tokens, strict=True)]
        group = await peers[0].ok("group.create", title="Tea", members=users[1:])
    return tokens, [group["conv"], f"d/{users[0]}/{users[1]}"]


async def live(data: Path, publishers: list[Publisher], answers: int) -> None:
    """One life of a broker: it is killed once it has given so many answers."""
    before = sum(publisher.answers for publisher in publishers)
    with running(data) as broker, trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            for publisher in publishers:
                nursery.start_soon(_run, publisher, broker, trio.Event(), True)
            while sum(p.answers for p in publishers) - before < answers:
                await trio.lowlevel.checkpoint()
            broker.process.kill()


async def settle(data: Path, publishers: list[Publisher], convs: list[str]) -> dict[str, Log]:
    """The last life: everything open is answered, and then read back."""
    with running(data) as broker, trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            waits = [trio.Event() for _ in publishers]
            for publisher, done in zip(publishers, waits, strict=True):
                nursery.start_soon(_run, publisher, broker, done, False)
            for done in waits:
                await done.wait()
            nursery.cancel_scope.cancel()
        return {conv: await read_back(broker, publishers[0].token, conv) for conv in convs}


async def _run(publisher: Publisher, broker: Broker, done: trio.Event, more: bool) -> None:
    await publisher.run(*tcp_address(broker), done, more=more)


async def read_back(broker: Broker, token: str, conv: str) -> Log:
    peer = await open_tcp(*tcp_address(broker))
    await peer.hello(token)
    log: Log = []
    while True:
        page = await peer.ok("history", conv=conv, after=len(log), limit=200)
        log += page["entries"]
        if len(log) >= page["head"]:
            return log


def check(publishers: list[Publisher], logs: dict[str, Log]) -> None:
    for conv, log in logs.items():
        assert [entry["seq"] for entry in log] == list(range(1, len(log) + 1)), "a hole"
        written: defaultdict[int, list[int]] = defaultdict(list)
        for entry in log:
            if entry["kind"] == "text":
                written[entry["from"]].append(int(entry["body"]))
        for user, numbers in written.items():
            assert numbers == list(range(len(numbers))), f"user {user}: lost, doubled or reordered"
        for publisher in publishers:
            check_promises(publisher, conv, log)


def check_promises(publisher: Publisher, conv: str, log: Log) -> None:
    assert not publisher.unanswered
    for (named, number), seq in publisher.promised.items():
        if named == conv:
            entry = log[seq - 1]
            assert (entry["from"], entry["body"]) == (publisher.user, str(number))
    for (seen_in, seq), entry in publisher.seen.items():
        if seen_in == conv:
            assert log[seq - 1]["body"] == entry["body"], "seen, and not so in the log"


async def test_nothing_acknowledged_is_lost_doubled_or_reordered(tmp_path: Path) -> None:
    random = Random(SEED)
    tokens, convs = await prepare(tmp_path)
    shared = [convs, convs, convs[:1], convs[:1]]
    publishers = [
        Publisher(token, theirs, Random(random.random()))
        for token, theirs in zip(tokens, shared, strict=True)
    ]
    for _ in range(KILLS):
        await live(tmp_path, publishers, random.randint(1, ANSWERS_MAX))
    logs = await settle(tmp_path, publishers, convs)
    check(publishers, logs)
    promised = sum(len(publisher.promised) for publisher in publishers)
    assert promised >= KILLS, "there was no load"
    assert any(publisher.repeated for publisher in publishers), "no key was used again"
