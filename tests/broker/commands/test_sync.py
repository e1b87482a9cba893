"""Coming back after an absence: one answer, or few, with everything that was missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from actors.conversation import Conversation
from actors.memory import Recent
from storage.memory import MemoryStore
from tests.broker.commands.people import entries_heard, heard, say, say_to, seqs
from tests.helpers.broker import Broker, running_broker
from tests.helpers.peer import Map, Peer


async def everything(peer: Peer, cursors: dict[str, int], limit: int = 50) -> list[Map]:
    """All answers to one look back, one after the other."""
    found: list[Map] = []
    mark = None
    while True:
        fields: dict[str, Any] = {"cursors": cursors, "limit": limit, "next": mark}
        answer = await peer.ok("sync", **fields)
        found += answer["conversations"]
        mark = answer.get("next")
        if mark is None:
            return found


async def test_only_what_moved_past_the_cursors(broker: Broker) -> None:
    ann, bob, cy = [await broker.join(name) for name in ("ann", "bob", "cy")]
    direct = await say_to(bob, ann.user, "one")
    await say_to(bob, ann.user, "two")
    other = await say_to(cy, ann.user, "hello")
    group = (await bob.ok("group.create", title="x", members=[ann.user]))["conv"]
    await ann.ok("read", conv=direct, seq=1)

    found = await everything(ann, {direct: 1, other: 1, "g/999": 5, "d/8/9": 1})

    assert [(c["conv"], seqs(c["entries"]), c["more"]) for c in found] == [
        (direct, [2], False),
        (group, [1], False),
    ]
    assert [(c["head"], c["read"], c["unread"]) for c in found] == [(2, 1, 1), (1, 0, 0)]
    assert found[0]["entries"] == [e for e in await entries_heard(ann) if e["body"] == "two"]


async def test_nothing_new_is_an_empty_answer(broker: Broker) -> None:
    ann, bob = await broker.join("ann"), await broker.join("bob")
    assert await ann.ok("sync") == {"t": "ok", "id": 2, "conversations": []}
    conv = await say_to(bob, ann.user, "one")
    assert (await ann.ok("sync", cursors={conv: 1}))["conversations"] == []
    assert (await ann.ok("sync", cursors={conv: 7}))["conversations"] == []


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
async def test_many_conversations_come_in_parts(broker: Broker, limit: int) -> None:
    ann = await broker.join("ann")
    others = [await broker.join(f"user {n}") for n in range(5)]
    convs = [await say_to(peer, ann.user, "hi") for peer in others]

    found = await everything(ann, {}, limit)

    assert [c["conv"] for c in found] == sorted(convs)


async def test_after_a_restart_the_store_knows_as_much(tmp_path: Path) -> None:
    async with running_broker(tmp_path / "a") as before:
        ann, bob = await before.join("ann"), await before.join("bob")
        conv = await say_to(bob, ann.user, "one")
        await say(ann, conv, "two")
        await say(bob, conv, "three @ann", mentions=[ann.user])
        await ann.ok("read", conv=conv, seq=1)
        expected = await everything(ann, {conv: 1})
    async with running_broker(tmp_path / "b", store=before.store) as after:
        again = await after.join("ann")

        found = await everything(again, {conv: 1})

        assert found == expected
        assert (found[0]["unread"], found[0]["mentions"]) == (1, 1)


async def test_of_a_long_absence_the_oldest_first_and_more_by_history(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        ann, bob = await broker.join("ann"), await broker.join("bob")
        conv = await say_to(bob, ann.user, "1")
        for n in range(2, 71):
            await say(bob, conv, str(n))

        (found,) = await everything(ann, {conv: 5})
        rest = await ann.ok("history", conv=conv, after=found["entries"][-1]["seq"])

        assert (found["more"], found["head"], found["unread"]) == (True, 70, 70)
        assert seqs(found["entries"] + rest["entries"]) == list(range(6, 71))


@pytest.mark.parametrize("over", ["tcp", "ws-json"])
async def test_no_answer_is_larger_than_a_frame(tmp_path: Path, over: str) -> None:
    frame_bytes = 16 * 1024
    async with running_broker(
        tmp_path, limits__frame_bytes=frame_bytes, limits__body_bytes=8 * 1024
    ) as broker:
        ann, bob = await broker.join("ann"), await broker.join("bob")
        convs = [await say_to(bob, ann.user, "x")]
        convs += [
            (await bob.ok("group.create", title=f"{n}", members=[ann.user]))["conv"]
            for n in range(3)
        ]
        for conv in convs:
            for n in range(5):
                media = {"name": f"{n}", "mime": "image/png", "data": bytes(3000)}
                await bob.ok("send", conv=conv, key=f"{conv}{n}", kind="image", body=media)
        reader = await broker.join("ann", over=over)
        sizes: list[int] = []
        record_sizes(reader, sizes)
        cursors: dict[str, int] = {}
        received: dict[str, list[int]] = {}

        answers = await everything(reader, cursors)
        while answers:
            for c in answers:
                received.setdefault(c["conv"], []).extend(seqs(c["entries"]))
                cursors[c["conv"]] = c["entries"][-1]["seq"]
            answers = await everything(reader, cursors)

        assert received == {conv: [1, 2, 3, 4, 5, 6] for conv in convs}
        assert frame_bytes / 2 < max(sizes) <= frame_bytes


def record_sizes(peer: Peer, sizes: list[int]) -> None:
    """Note how large each frame is that this peer receives."""
    carrier: Any = peer.carrier
    if hasattr(carrier, "websocket"):
        receive = carrier.websocket.get_message

        async def counted() -> str | bytes:
            data: str | bytes = await receive()
            sizes.append(len(data if isinstance(data, bytes) else data.encode()))
            return data

        carrier.websocket.get_message = counted
    else:
        exactly = carrier._exactly

        async def measured(count: int) -> bytes:
            sizes.append(count)
            data: bytes = await exactly(count)
            return data

        carrier._exactly = measured


async def test_too_many_cursors_and_bad_ones(broker: Broker) -> None:
    ann = await broker.join("ann")
    error = await ann.error("sync", cursors={"d/1/2": -1})
    assert (error["code"], error["field"]) == ("bad_request", "cursors")
    for field, value in (("limit", 0), ("limit", 201), ("next", 5), ("cursors", [])):
        error = await ann.error("sync", **{field: value})
        assert (error["code"], error["field"]) == ("bad_request", field)


async def test_too_many_cursors_are_too_large(tmp_path: Path) -> None:
    async with running_broker(tmp_path, limits__frame_bytes=1 << 20) as broker:
        ann = await broker.join("ann")
        error = await ann.error("sync", cursors={f"g/{n}": 1 for n in range(1, 10_002)})
        assert (error["code"], error["field"]) == ("too_large", "cursors")


async def test_what_was_seen_live_before_is_in_the_answer(broker: Broker) -> None:
    """Else a client that keeps one cursor would have a hole before the live entries."""
    ann, bob = await broker.join("ann"), await broker.join("bob")
    conv = await say_to(bob, ann.user, "0")
    for n in range(1, 20):
        await bob.send("send", conv=conv, key=f"{n}", kind="text", body=f"{n}")
        live = (await ann.event("msg"))["seq"]
        (found,) = await everything(ann, {})
        assert found["head"] >= live
        assert found["entries"][-1]["seq"] >= live
    await heard(bob)


class SlowReads(MemoryStore):
    """Reads of logs wait, when the test wants them to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate: trio.Event | None = None
        self.held = trio.Event()

    async def read(
        self, conv: str, *, after: int | None = None, before: int | None = None, limit: int
    ) -> list[bytes]:
        if self.gate is not None:
            self.held.set()
            await self.gate.wait()
        return await super().read(conv, after=after, before=before, limit=limit)


async def fallen_behind(broker: Broker) -> tuple[Peer, Peer, Conversation]:
    """Ann, and Bob who is told that he is behind in their conversation."""
    ann, bob = await broker.join("ann"), await broker.join("bob")
    actor = broker.active(await say_to(ann, bob.user, "one"))
    await bob.event("msg")
    for node in broker.nodes:
        for connection in node.registry.connections_of(bob.user):
            live = node.registry.live(actor.name)
            assert live is not None
            connection.fall_behind(live)
    await say(ann, actor.name, "two")
    assert (await bob.event())["t"] == "behind"
    return ann, bob, actor


async def test_who_is_behind_is_not_left_there_by_what_comes_meanwhile(tmp_path: Path) -> None:
    store = SlowReads()
    async with running_broker(tmp_path, store=store) as broker:
        ann, bob, actor = await fallen_behind(broker)
        actor.recent = Recent(actor.head)  # so that the entries must be read from the store
        store.gate = trio.Event()
        looking = await bob.send("sync", cursors={actor.name: 1})
        await store.held.wait()
        await say(ann, actor.name, "three")
        store.gate.set()

        (found,) = (await bob.reply(looking))["conversations"]

        assert (seqs(found["entries"]), found["head"], found["more"]) == ([2], 3, True)
        assert seqs((await bob.ok("history", conv=actor.name, after=2))["entries"]) == [3]
        await say(ann, actor.name, "four")
        assert seqs(await entries_heard(bob)) == [4]


async def test_who_is_behind_in_what_rests_is_live_when_it_wakes(broker: Broker) -> None:
    ann, bob, actor = await fallen_behind(broker)
    actor.end()

    (found,) = (await bob.ok("sync", cursors={actor.name: 1}))["conversations"]
    assert (seqs(found["entries"]), found["more"]) == ([2], False)

    await say(ann, actor.name, "three")
    assert seqs(await entries_heard(bob)) == [3]
