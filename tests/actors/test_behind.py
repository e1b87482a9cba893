"""From `behind` on nothing comes live, until the very reply that reaches the head."""

from __future__ import annotations

import trio

from tests.actors.world import World, world
from tests.helpers.peer import Peer

CONV = "d/1/2"


async def send(peer: Peer, *names: str) -> None:
    for name in names:
        await peer.ok("send", conv=CONV, key=name, kind="text", body=name)


async def pull(peer: Peer, after: int, limit: int) -> list[str]:
    page = await peer.ok("history", conv=CONV, after=after, limit=limit)
    return [entry["body"] for entry in page["entries"]]


async def fall_behind(made: World) -> tuple[Peer, Peer]:
    """One who writes, and one who has got `a` and is behind since `b` and `c`."""
    _, ann = await made.join(1)
    connection, bob = await made.join(2)
    await send(ann, "a")
    assert (await bob.event("msg"))["body"] == "a"
    connection.fall_behind(made.conversation(CONV))
    await send(ann, "b", "c")
    assert (await bob.event())["t"] == "behind"
    return ann, bob


async def test_a_page_that_stops_before_the_head_makes_nothing_live() -> None:
    async with world() as made:
        ann, bob = await fall_behind(made)
        with trio.fail_after(2):
            assert await pull(bob, 1, 1) == ["b"]
            await send(ann, "d")
            assert await pull(bob, 2, 1) == ["c"]
            await bob.ok("ping")
            assert not bob.events


async def test_the_page_that_reaches_the_head_makes_it_live_without_a_hole() -> None:
    async with world() as made:
        ann, bob = await fall_behind(made)
        with trio.fail_after(2):
            assert await pull(bob, 1, 10) == ["b", "c"]
            await send(ann, "d")
            event = await bob.event()
            assert (event["t"], event["seq"], event["body"]) == ("msg", 4, "d")


async def test_an_empty_page_at_the_head_makes_it_live_too() -> None:
    async with world() as made:
        ann, bob = await fall_behind(made)
        with trio.fail_after(2):
            assert await pull(bob, 3, 10) == []
            await send(ann, "d")
            assert (await bob.event())["body"] == "d"


async def test_other_conversations_go_on() -> None:
    async with world(users=3) as made:
        _, bob = await fall_behind(made)
        _, cid = await made.join(3)
        with trio.fail_after(2):
            await cid.ok("send", conv="d/2/3", key="x", kind="text", body="x")
            assert (await bob.event())["conv"] == "d/2/3"
