"""The sweeper: whoever is late is told so, and what is idle is put away."""

from __future__ import annotations

from actors.sweeper import (
    sweep_conversations,
    sweep_lingering,
    sweep_openings,
    sweep_silent,
    sweep_stalled,
)
from tests.actors.world import world

HOUR_S = 3_600.0


async def test_who_does_not_say_hello_is_sent_away_and_others_stay() -> None:
    async with world() as made:
        node = made.node
        late, stranger = made.accept()
        await made.until(lambda: late in node.opening)
        here, ann = await made.join(1)
        limit_s = node.options.opening_timeout_ms / 1000

        sweep_openings(node, late.opened_at + limit_s - 0.001)
        assert not late.closing
        sweep_openings(node, late.opened_at + limit_s + 0.001)

        assert (await stranger.event("bye"))["code"] == "auth_timeout"
        assert not here.closing
        await ann.ok("ping")


async def test_who_is_silent_for_two_heartbeats_is_gone() -> None:
    async with world() as made:
        node = made.node
        connection, ann = await made.join(1)
        limit_s = 2 * node.options.heartbeat_ms / 1000

        await sweep_silent(node, connection.seen_at + limit_s - 0.001)
        assert not connection.closing
        await sweep_silent(node, connection.seen_at + limit_s + 0.001)

        assert (await ann.event("bye"))["code"] == "idle"


async def test_who_takes_nothing_is_cut_and_who_does_not_close_is_closed() -> None:
    async with world() as made:
        node = made.node
        slow, _ = made.pair(buffer_bytes=4_096)
        await made.until(lambda: slow in node.connections)
        slow.opened(2, "reads nothing", "")
        slow.push(bytes(300_000))
        slow.flush()
        assert slow.stalled

        sweep_stalled(node, slow.progress_at + node.options.stall_ms / 1000 - 0.001)
        assert not slow.closing
        sweep_stalled(node, slow.progress_at + node.options.stall_ms / 1000 + 0.001)
        assert slow.closing
        assert node.counters.slow_cut == 1

        sweep_lingering(node, node.lingering[slow] + 0.001)
        await made.until(lambda: slow not in node.connections)


async def test_an_idle_conversation_is_put_away_and_comes_back() -> None:
    async with world() as made:
        node = made.node
        _, ann = await made.join(1)
        first = await ann.ok("send", to={"user": 2}, key="1", kind="text", body="a")

        await sweep_conversations(node, node.now())
        assert first["conv"] in node.registry.conversations
        await sweep_conversations(node, node.now() + HOUR_S)
        assert first["conv"] not in node.registry.conversations

        again = await ann.ok("send", to={"user": 2}, key="1", kind="text", body="a")
        assert again["seq"] == first["seq"]
        second = await ann.ok("send", to={"user": 2}, key="2", kind="text", body="b")
        assert second["seq"] == first["seq"] + 1


async def test_above_the_limit_the_longest_idle_go_first() -> None:
    async with world(users=4, max_conversations=2) as made:
        node = made.node
        _, ann = await made.join(1)
        names = []
        for user in (2, 3, 4):
            sent = await ann.ok("send", to={"user": user}, key="1", kind="text", body="a")
            names.append(sent["conv"])
            await made.until(lambda: not node.turn.busy)

        await sweep_conversations(node, node.now())

        assert list(node.registry.conversations) == names[1:]
