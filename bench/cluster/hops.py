"""S4: what it adds to a message that it crosses nodes, hop by hop, on an otherwise idle cluster.

Two nodes with ports of their own, two groups, one owned by each node. A message is published at its
owner or at the other node, and heard at either. One message at a time, so this is latency without
queues. The hops alone: a `ping` is a client's way to its node and back; a commit is the store's; a
message from one inbox to another is the bus's.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple

import trio

from bench import machine
from bench.cluster.line import Line
from bench.cluster.measuring import Plan
from bench.cluster.pages import payload
from bench.cluster.results import CaseResult, Figure, Target
from bench.cluster.world import KEYSPACE, Broker, World
from bench.servers import HOST, ServerFailed
from bench.stats import percentile
from storage.cassandra import CassandraStore, open_cassandra
from storage.names import slot_of
from storage.records import Append, Commit
from storage.redis import RedisShared, open_redis
from storage.shared import Leases

NODES = ("first", "second")
WAIT_S = 10.0
"""For one message; then the measurement has failed."""
WARM = 20
"""Messages before the first sample."""
CREATIONS_MAX = 40
CREATION_PAUSE_S = 0.25
"""Groups that are made until each node owns one, and how long is waited between them."""
BUS_BYTES = 300
"""About what an envelope with one message has."""


PRESENT_USERS = 10_000
PRESENT_TTL_MS = 60_000
FLOOD_BYTES = 2_000
FLOOD_IN_FLIGHT = 1_000
FLOOD_S = 2.0
"""How long a bus is flooded, with messages of this size, so many of them not yet received."""


class Way(NamedTuple):
    """Where a message was published and what was waited for."""

    published: str
    waited: str

    def __str__(self) -> str:
        return f"published at {self.published}: {self.waited}"


OWNER, OTHER = "its owner's node", "the other node"
ACK, AT_OWNER, AT_OTHER = "answer", "heard at its owner's node", "heard at the other node"


def hops(world: World, plan: Plan) -> CaseResult:
    """S4."""
    result = CaseResult(case="S4", load="2 nodes, 2 groups of 4, one message at a time")
    with _two_nodes(world) as (first, second):
        world.settle(2)
        ways = _messages(world, plan, first, second)
        pings = _pings(world, plan, first)
    alone = {"a client's way to its node and back": pings, **trio.run(_parts, world, plan)}
    for name, samples in [*alone.items(), *((str(way), each) for way, each in ways.items())]:
        result.figures += _figures(name, samples)
        plan.tell(f"S4 {name}: p50 {_p(samples, 0.5):.2f} ms, p99 {_p(samples, 0.99):.2f} ms")
    result.figures += [*trio.run(_flood, world), trio.run(_user_bytes, world)]
    for what, way, base in (
        ("added to the answer where the command crosses", Way(OTHER, ACK), Way(OWNER, ACK)),
        ("added to a delivery that crosses", Way(OWNER, AT_OTHER), Way(OWNER, AT_OWNER)),
        ("added to a delivery where both cross", Way(OTHER, AT_OTHER), Way(OWNER, AT_OWNER)),
    ):
        for share in (0.5, 0.99):
            added = _p(ways[way], share) - _p(ways[base], share)
            what_ = f"{what}: p{share * 100:.0f}"
            result.targets.append(Target(what=what_, unit="ms", value=None, reached=added))
    return result


def _figures(name: str, samples: list[int]) -> Iterator[Figure]:
    for share in (0.5, 0.99):
        yield Figure(name=f"{name}: p{share * 100:.0f}", unit="ms", rounds=[_p(samples, share)])


def _p(samples: list[int], share: float) -> float:
    return percentile(sorted(samples), share) / 1e6


@contextlib.contextmanager
def _two_nodes(world: World) -> Iterator[tuple[Broker, Broker]]:
    with world.serve(name=NODES[0]) as first, world.serve(name=NODES[1]) as second:
        yield first, second


def _messages(world: World, plan: Plan, first: Broker, second: Broker) -> dict[Way, list[int]]:
    """Nanoseconds by way."""
    at = [first, second]
    publishers = [Line(broker.tcp, token) for broker, token in zip(at, world.tokens, strict=False)]
    hearers = [Line(broker.tcp, token) for broker, token in zip(at, world.tokens[2:], strict=False)]
    groups = trio.run(_groups_of_each, world, [*publishers, *hearers])
    ways: dict[Way, list[int]] = {
        Way(published, waited): []
        for published in (OWNER, OTHER)
        for waited in (ACK, AT_OWNER, AT_OTHER)
    }
    for number in range(-WARM, plan.sizes.samples):
        for owner, conv in enumerate(groups):
            for place, publisher in enumerate(publishers):
                took = _one(publisher, hearers, conv, f"{number}")
                if number < 0:
                    continue
                published = OWNER if place == owner else OTHER
                ways[Way(published, ACK)].append(took[0])
                ways[Way(published, AT_OWNER)].append(took[1 + owner])
                ways[Way(published, AT_OTHER)].append(took[2 - owner])
    for line in [*publishers, *hearers]:
        line.close()
    return ways


async def _groups_of_each(world: World, people: list[Line]) -> list[str]:
    """A group that the first node owns and one that the second owns; all people are in both."""
    async with open_cassandra(world.settings) as store:
        return [
            await _group_of(store, node, creator, people)
            for creator, node in zip(people, NODES, strict=False)
        ]


async def _group_of(store: Leases, node: str, creator: Line, people: list[Line]) -> str:
    """A node makes groups that it owns itself, but slots still move while nodes are new."""
    others = [line.user for line in people if line is not creator]
    for _ in range(CREATIONS_MAX):
        reply = creator.ask("group.create", title="bench", kind="group", members=others)
        conv = str(reply["conv"])
        names = {record.incarnation: record.node for record in await store.nodes()}
        owners = [names.get(record.owner) for record in await store.slots()]
        if owners[slot_of(conv)] == node and set(owners) == set(NODES):
            return conv
        await trio.sleep(CREATION_PAUSE_S)
    raise ServerFailed(f"{node} owns none of the {CREATIONS_MAX} groups that it made")


def _one(publisher: Line, hearers: list[Line], conv: str, key: str) -> list[int]:
    """Publish one message: nanoseconds until its answer, and until each hearer has it."""
    lines = [publisher, *hearers]
    took = [0] * len(lines)
    began = time.monotonic_ns()
    publisher.send("send", conv=conv, key=key, kind="text", body="x")
    while not all(took):
        waiting = [line for line, done in zip(lines, took, strict=True) if not done]
        ready, _, _ = select.select([line.sock for line in waiting], [], [], WAIT_S)
        now = time.monotonic_ns()
        if not ready:
            raise ServerFailed(f"a message was not heard for {WAIT_S:g} s")
        for number, line in enumerate(lines):
            wanted = "msg" if number else "ok"
            if line.sock in ready and any(
                event["t"] == wanted and event.get("conv") == conv and event.get("body", "x") == "x"
                for event in line.take()
            ):
                took[number] = now - began
    return took


def _pings(world: World, plan: Plan, broker: Broker) -> list[int]:
    line = Line(broker.tcp, world.tokens[0])
    samples = []
    for _ in range(plan.sizes.samples):
        began = time.monotonic_ns()
        line.ask("ping")
        samples.append(time.monotonic_ns() - began)
    line.close()
    return samples


async def _parts(world: World, plan: Plan) -> dict[str, list[int]]:
    async with open_cassandra(world.settings) as store:
        commits = await _commits(store, plan.sizes.samples)
    async with (
        open_redis(world.redis.url, inbox="bench-a", prefix=KEYSPACE) as a,
        open_redis(world.redis.url, inbox="bench-b", prefix=KEYSPACE) as b,
    ):
        words = await _words(a, b, plan.sizes.samples)
    return {"a commit of one entry": commits, "one word over the bus": words}


async def _flood(world: World) -> list[Figure]:
    """How many messages a bus carries when there is always another, and what it costs."""
    redis = world.redis.pid
    async with (
        open_redis(world.redis.url, inbox="bench-c", prefix=KEYSPACE) as a,
        open_redis(world.redis.url, inbox="bench-d", prefix=KEYSPACE) as b,
        trio.open_nursery() as nursery,
    ):
        received = 0

        async def send() -> None:
            sent = 0
            while True:
                while sent - received < FLOOD_IN_FLIGHT:
                    a.bus.send("bench-d", bytes(FLOOD_BYTES))
                    sent += 1
                await trio.lowlevel.checkpoint()

        nursery.start_soon(send)
        began, own, of_redis = time.monotonic(), time.process_time(), machine.cpu_seconds(redis)
        while time.monotonic() < began + FLOOD_S:
            with trio.fail_after(WAIT_S):
                received += len(await b.bus.receive())
        took = time.monotonic() - began
        own, of_redis = time.process_time() - own, machine.cpu_seconds(redis) - of_redis
        nursery.cancel_scope.cancel()
    name = f"messages of {FLOOD_BYTES:,} bytes over the bus"
    return [
        Figure(name=name, unit="messages/s", rounds=[received / took]),
        Figure(name=f"{name}, both ends", unit="µs of CPU", rounds=[own / received * 1e6]),
        Figure(name=f"{name}, Redis", unit="µs of CPU", rounds=[of_redis / received * 1e6]),
    ]


async def _user_bytes(world: World) -> Figure:
    """What a user who is online takes in Redis."""
    before = _redis_bytes(world)
    async with open_redis(world.redis.url, inbox="bench-e", prefix=KEYSPACE) as shared:
        await shared.presence.keep_alive("bench-e", PRESENT_TTL_MS)
        await shared.presence.update("bench-e", here=range(1, 1 + PRESENT_USERS), gone=())
        size = (_redis_bytes(world) - before) / PRESENT_USERS
        await shared.presence.update("bench-e", here=(), gone=range(1, 1 + PRESENT_USERS))
    return Figure(name="a user who is online, in Redis", unit="bytes", rounds=[size])


def _redis_bytes(world: World) -> int:
    with socket.create_connection((HOST, world.redis.port), WAIT_S) as sock:
        sock.sendall(b"INFO memory\r\n")
        (line,) = [
            line for line in sock.recv(1 << 16).split(b"\r\n") if line.startswith(b"used_memory:")
        ]
    return int(line.partition(b":")[2])


async def _commits(store: CassandraStore, count: int) -> list[int]:
    samples = []
    for seq in range(1, WARM + count + 1):
        append = Append("g/9007199254740991", seq, [payload(seq)], ts=seq)
        began = time.monotonic_ns()
        await store.commit(Commit(appends=[append]))
        samples.append(time.monotonic_ns() - began)
    return samples[WARM:]


async def _words(a: RedisShared, b: RedisShared, count: int) -> list[int]:
    samples = []
    for _ in range(WARM + count):
        with trio.fail_after(WAIT_S):
            began = time.monotonic_ns()
            a.bus.send("bench-b", bytes(BUS_BYTES))
            await b.bus.receive()
            samples.append(time.monotonic_ns() - began)
    return samples[WARM:]
