"""A member who stops reading: degraded, told to pull, at last cut; 999 others never notice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.faults.slow import Member, Operator, bodies_in, join_unread
from tests.helpers.broker import Broker, running_broker
from tests.helpers.peer import Map, Peer

SOFT, HIGH, HARD = 16 * 1024, 64 * 1024, 256 * 1024
MARKS = {"outbox__soft_bytes": SOFT, "outbox__high_bytes": HIGH, "outbox__hard_bytes": HARD}
PATIENCE_S = 30


@asynccontextmanager
async def broker_with(data: Path, **settings: Any) -> AsyncIterator[tuple[Broker, Operator]]:
    with trio.fail_after(PATIENCE_S):
        async with running_broker(data, **{**MARKS, **settings}) as broker:
            operator = Operator(broker)
            yield broker, operator
            await operator.aclose()


class Room:
    """A group in which one publishes; `body(n)` is the n-th message, long enough to find it by."""

    def __init__(self, publisher: Peer, conv: str, head: int, pad: int) -> None:
        self.publisher = publisher
        self.conv = conv
        self.head = head
        self.sent = 0
        self._pad = "x" * pad

    def body(self, n: int) -> str:
        return f"{self._pad}<{n:06}>"

    async def publish(self, count: int) -> None:
        ids = []
        for _ in range(count):
            body = self.body(self.sent)
            ids.append(
                await self.publisher.send(
                    "send", conv=self.conv, key=f"{self.sent}", kind="text", body=body
                )
            )
            self.sent += 1
        for id in ids:
            assert (await self.publisher.reply(id))["t"] == "ok"

    def entries(self) -> list[tuple[int, str]]:
        """All that was published, after those entries by which the group was made."""
        return [(self.head + 1 + n, self.body(n)) for n in range(self.sent)]


async def open_room(broker: Broker, members: int, pad: int) -> Room:
    """A group of `members` accounts, publisher included; nobody else is connected."""
    users = [(await broker.user(f"user{n}")).id for n in range(members)]
    publisher = await broker.join("user0")
    group = await publisher.ok("group.create", title="Tea", members=users[1:200])
    for start in range(200, members, 200):
        await publisher.ok("group.invite", conv=group["conv"], users=users[start : start + 200])
    head = (await publisher.ok("history", conv=group["conv"]))["head"]
    return Room(publisher, group["conv"], head, pad)


async def join_all(broker: Broker, names: list[str]) -> list[Member]:
    return [Member(await broker.join(name)) for name in names]


async def publish_to(room: Room, members: list[Member], count: int) -> None:
    """Publish, and wait until every member has the last message."""
    async with trio.open_nursery() as nursery:
        for member in members:
            last = room.body(room.sent + count - 1)[-8:].encode()
            nursery.start_soon(member.read, last)
        await room.publish(count)


async def catch_up(peer: Peer, room: Room) -> list[tuple[int, Any]]:
    """Read on, pull when told to, and return what came live or by history, up to the head."""
    got: list[tuple[int, Any]] = []
    cursor = room.head
    while (event := await peer.event())["t"] != "behind":
        if event["t"] == "msg":
            assert event["seq"] == cursor + 1, "a hole before it was told to be behind"
            cursor = event["seq"]
            got.append((cursor, event["body"]))
    assert event["conv"] == room.conv
    while True:
        page = await peer.ok("history", conv=room.conv, after=cursor, limit=200)
        got += [(entry["seq"], entry["body"]) for entry in page["entries"]]
        cursor = got[-1][0]
        if cursor >= page["head"]:
            return got


async def test_one_of_a_thousand_who_stops_reading_is_nobodys_trouble(tmp_path: Path) -> None:
    async with broker_with(tmp_path, limits__in_flight=1_000) as (broker, operator):
        room = await open_room(broker, 1_000, pad=1_000)
        slow = await join_unread(broker, "user999")
        await stall(room, operator, above=SOFT)
        first = room.sent
        members = await join_all(broker, [f"user{n}" for n in range(1, 999)])

        while (state := await operator.stalled()) and not state["behind"]:
            assert state["queued_bytes"] <= HIGH
            await publish_to(room, members, 20)
        await publish_to(room, members, 20)
        state = await operator.stalled()
        assert state is not None
        assert state["stalled"]
        assert state["queued_bytes"] <= HIGH
        assert (await operator.counters())["behind"] == 1

        # It reads again, while the others go on.
        got: list[tuple[int, Any]] = []

        async def read_again() -> None:
            got.extend(await catch_up(slow, room))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_again)
            nursery.start_soon(publish_to, room, members, 20)
        await publish_to(room, members, 5)
        while len(got) < room.sent:
            event = await slow.event("msg")
            assert event["seq"] == got[-1][0] + 1
            got.append((event["seq"], event["body"]))
        assert got == room.entries()
        for stream in {bytes(member.received) for member in members}:
            assert bodies_in(stream) == room.entries()[first:]


async def stall(room: Room, operator: Operator, *, above: int) -> Map:
    """Publish until the connection that nobody reads has so many bytes waiting."""
    while (state := await operator.stalled()) is not None and state["queued_bytes"] <= above:
        await room.publish(10)
    assert state is not None
    return state


async def test_typing_is_dropped_first_and_only_for_the_slow(tmp_path: Path) -> None:
    async with broker_with(tmp_path) as (broker, operator):
        room = await open_room(broker, 3, pad=3_000)
        other = await broker.join("user1")
        slow = await join_unread(broker, "user2")
        await stall(room, operator, above=SOFT)
        for _ in range(3):
            await room.publisher.ok("typing", conv=room.conv)
            assert (await other.event("typing"))["user"] == room.publisher.user
        assert (await operator.counters())["ephemeral_dropped"] == 3
        seen = []
        while len(seen) < room.sent:
            event = await slow.event()
            assert event["t"] != "typing"
            seen += [event["body"]] if event["t"] == "msg" else []
        await room.publisher.ok("typing", conv=room.conv)
        assert (await slow.event())["t"] == "typing"


async def test_answers_alone_above_the_hard_mark_end_the_connection(tmp_path: Path) -> None:
    async with broker_with(tmp_path) as (broker, operator):
        room = await open_room(broker, 3, pad=30_000)
        other = await broker.join("user1")
        await room.publish(20)
        slow = await join_unread(broker, "user2")
        asked = 0
        while (await operator.counters())["slow_cut"] == 0:
            try:
                await slow.send("history", conv=room.conv, after=0, limit=4)
            except trio.BrokenResourceError:
                break
            asked += 1
            state = await operator.stalled()
            assert state is None or state["queued_bytes"] <= HARD
        ended = await slow.ended()
        assert ended.status is None
        bye = slow.events[-1]
        assert (bye["t"], bye["code"], bye["reconnect"]) == ("bye", "slow_consumer", True)
        assert [(await other.event("msg"))["body"] for _ in range(20)] == [
            room.body(n) for n in range(20)
        ]


async def test_who_takes_nothing_for_the_stall_time_is_cut(tmp_path: Path) -> None:
    async with broker_with(tmp_path, outbox__stall_ms=200, presence__coalesce_ms=1) as (
        broker,
        operator,
    ):
        room = await open_room(broker, 3, pad=3_000)
        watcher = await broker.join("user1")
        slow = await join_unread(broker, "user2")
        await watcher.ok("presence.watch", users=[slow.user])
        await stall(room, operator, above=HIGH // 2)
        while (await watcher.event("presence"))["users"][0]["online"]:
            pass
        assert (await operator.counters())["slow_cut"] == 1
        await slow.ended()
        assert slow.events[-1]["code"] == "slow_consumer"
        await watcher.ok("ping")
