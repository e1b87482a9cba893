"""Conversations change hands under their members' eyes: nobody misses anything, nobody is told to
pull where there is no need to."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.cluster import words as w
from actors.cluster.moving import CONFIRM_TIMEOUT_S, FINISH_TIMEOUT_S
from actors.cluster.placement import RETRY_S
from storage.errors import Unavailable
from storage.names import slot_of
from tests.actors.cluster.nodes import ClusterNode, Nodes, nodes_of, nothing_more, send, seqs


def mover(nodes: Nodes, joining: str = "n3") -> tuple[str, ClusterNode]:
    """A conversation of user 1 that will go to a node that is about to come, and its owner."""
    for n in nodes.running:
        for other in range(2, 40):
            conv = f"d/1/{other}"
            slot = slot_of(conv)
            scores = {m.node.name: n.placement._score(m.node.name, slot) for m in nodes.running}
            if n.owns(conv) and n.placement._score(joining, slot) > max(scores.values()):
                return conv, n
    raise AssertionError("no conversation would move")


async def test_members_everywhere_hear_on_without_a_hole_or_a_doubt(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        conv, owner = mover(nodes)
        (away,) = [n for n in nodes.running if n is not owner]
        other = int(conv.rpartition("/")[2])
        ann, bob = await owner.join(1), await away.join(other)
        assert await send(ann, conv, "a") == [1]
        third = nodes.start("n3")
        await nodes.settled()
        assert third.owns(conv)
        assert await send(bob, conv, "b") == [2]
        assert await send(ann, conv, "c") == [3]
        for peer in (ann, bob):
            assert await seqs(peer, 3) == [1, 2, 3]
        await nothing_more([ann, bob])
        assert conv in third.node.registry.conversations
        assert conv not in owner.node.registry.conversations


async def test_a_key_that_was_used_at_the_last_owner_is_known_to_the_next(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        conv, owner = mover(nodes)
        ann = await owner.join(1)
        await send(ann, conv, "a", "b")
        nodes.start("n3")
        await nodes.settled()
        assert await send(ann, conv, "a", "b", "c") == [1, 2, 3]


async def test_what_is_under_way_is_finished_before_another_may_write(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        conv, owner = mover(nodes)
        ann = await owner.join(1)
        await send(ann, conv, "a")
        nodes.store.commits.close()
        id_ = await ann.send("send", conv=conv, key="slow", kind="text", body="slow")
        await wait_all_tasks_blocked()
        third = nodes.start("n3")
        await trio.sleep(FINISH_TIMEOUT_S / 2)
        assert not third.owns(conv), "a commit is under way"
        nodes.store.commits.open()
        assert (await ann.reply(id_))["seq"] == 2
        await nodes.settled()
        assert third.owns(conv)
        assert await seqs(ann, 2) == [1, 2]


async def test_what_was_said_after_it_began_to_move_does_not_overtake_what_was_said_before(
    autojump_clock: MockClock,
) -> None:
    """Seed 600192 of the simulated cluster."""
    async with nodes_of("n1", "n2") as nodes:
        conv, owner = mover(nodes)
        ann = await owner.join(1)
        await send(ann, conv, "a")
        nodes.store.commits.close()
        ids = [await ann.send("send", conv=conv, key="slow", kind="text", body="slow")]
        await wait_all_tasks_blocked()
        ids.append(await ann.send("send", conv=conv, key="waits", kind="text", body="waits"))
        third = nodes.start("n3")
        await nodes.until(lambda: not owner.owns(conv))
        ids.append(await ann.send("send", conv=conv, key="later", kind="text", body="later"))
        await nodes.until(lambda: third.owns(conv))
        nodes.store.commits.open()
        replies = [await ann.reply(id_) for id_ in ids]
        assert [reply["t"] for reply in replies] == ["error", "ok", "ok"]
        assert replies[1]["seq"] < replies[2]["seq"]


async def test_where_it_cannot_be_put_away_its_owner_goes_on_at_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes_of("n1") as nodes:
        conv, owner = mover(nodes, "n2")
        ann = await owner.join(1)
        await send(ann, conv, "a")
        put_away = nodes.store.put_away
        failed, meanwhile = trio.Event(), []

        async def fails_once(epochs: Mapping[str, int]) -> None:
            if conv not in epochs or failed.is_set():
                return await put_away(epochs)
            meanwhile.append(await ann.send("send", conv=conv, key="b", kind="text", body="b"))
            await nodes.until(lambda: slot_of(conv) in owner.cluster.routes)
            failed.set()
            raise Unavailable("away")

        monkeypatch.setattr(nodes.store, "put_away", fails_once)
        second = nodes.start("n2")
        await failed.wait()
        with trio.fail_after(RETRY_S / 2):  # not only when it looks again
            assert (await ann.reply(meanwhile[0]))["seq"] == 2
        assert owner.owns(conv)
        await nodes.settled()
        assert second.owns(conv)


async def test_what_cannot_be_finished_in_time_is_in_doubt_and_not_lost(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        conv, owner = mover(nodes)
        (away,) = [n for n in nodes.running if n is not owner]
        other = int(conv.rpartition("/")[2])
        ann, bob = await owner.join(1), await away.join(other)
        await send(ann, conv, "a")
        nodes.store.commits.close()
        id_ = await ann.send("send", conv=conv, key="slow", kind="text", body="slow")
        await wait_all_tasks_blocked()
        third = nodes.start("n3")
        await nodes.until(lambda: third.owns(conv))
        assert conv not in owner.cluster.doubtful, "the next owner doubts"
        nodes.store.commits.open()
        reply = await ann.reply(id_)
        assert (reply["t"], reply["code"], reply["retry"]) == ("error", "unavailable", True)
        again = await ann.ok("send", conv=conv, key="slow", kind="text", body="slow")
        assert again["seq"] == 2
        assert await seqs(ann, 1) == [1]
        assert await seqs(bob, 1) == [1]
        for peer in (ann, bob):
            event = await peer.event()
            while event["t"] == "behind":
                page = await peer.ok("history", conv=conv, after=1)
                event = page["entries"][0]
            assert (event["seq"], event["body"]) == (2, "slow")


async def test_a_peer_that_has_not_heard_everything_leaves_the_next_owner_to_doubt(
    autojump_clock: MockClock,
) -> None:
    """Its members are behind rather than without an entry; those elsewhere go on."""
    async with nodes_of("n1", "n2") as nodes:
        conv, owner = mover(nodes)
        (away,) = [n for n in nodes.running if n is not owner]
        other = int(conv.rpartition("/")[2])
        ann, bob = await owner.join(1), await away.join(other)
        await send(ann, conv, "a")
        assert await seqs(bob, 1) == [1]
        nodes.network.part(owner.inbox, away.inbox, both=False)
        await send(ann, conv, "b")
        third = nodes.start("n3")
        started = trio.current_time()
        await nodes.until(lambda: third.owns(conv))
        assert trio.current_time() - started > CONFIRM_TIMEOUT_S
        await send(ann, conv, "c")
        assert await seqs(ann, 3) == [1, 2, 3]
        nodes.network.cut.clear()
        event = await bob.event()
        if event["t"] == "msg":
            assert event["seq"] == 2, "read from the store by who knew what it had been told"
            assert await seqs(bob, 1) == [3]
        else:
            page = await bob.ok("history", conv=conv, after=1)
            assert [entry["seq"] for entry in page["entries"]] == [2, 3]
        await nothing_more([ann, bob])


async def test_what_could_not_be_put_away_is_taken_up_by_the_next_owner_in_doubt(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        conv, owner = mover(nodes)
        ann = await owner.join(1)
        await send(ann, conv, "a")

        async def failing(epochs: Mapping[str, int]) -> None:
            raise Unavailable("away")

        nodes.store.put_away = failing  # type: ignore[method-assign]
        third = nodes.start("n3")
        await nodes.until(lambda: third.owns(conv))
        await nodes.until(lambda: conv in third.node.registry.conversations)
        assert await send(ann, conv, "b") == [2]
        first, second = await ann.event(), await ann.event()
        assert first["seq"] == 1
        if second["t"] == "behind":
            page = await ann.ok("history", conv=conv, after=1)
            assert [entry["seq"] for entry in page["entries"]] == [2]
        else:
            assert second["seq"] == 2, "who gave it away knew what it had told"
        await nothing_more([ann])


async def test_who_leaves_has_all_its_conversations_go_on_elsewhere(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        ann = await n1.join(1)
        convs = [n2.conv(skip=skip) for skip in range(5)]
        for conv in convs:
            await send(ann, conv, f"a{conv}")
        await n2.leave()
        for conv in convs:
            assert await send(ann, conv, f"b{conv}") == [2]
        heard: dict[str, list[int]] = {}
        for _ in range(10):
            event = await ann.event()
            assert event["t"] == "msg"
            heard.setdefault(event["conv"], []).append(event["seq"])
        assert heard == {conv: [1, 2] for conv in convs}
        assert not nodes.network.words(w.Behind)


async def test_who_leaves_takes_nothing_new_for_what_nobody_took_over(
    autojump_clock: MockClock,
) -> None:
    """Else it would put away a conversation with a commit under way, and what that writes, and is
    acknowledged, would be void."""
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n1.conv()
        ann = await n2.join(1)
        await send(ann, conv, "a")
        nodes.network.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(n1.cluster.leave)
            await trio.sleep(CONFIRM_TIMEOUT_S / 2)
            assert n1.placement.owned, "it waits for n2 to have heard all"
            assert not n1.owns(conv)


async def test_what_is_not_finished_is_not_handed_over_by_a_look_beside_it(
    autojump_clock: MockClock,
) -> None:
    """Else the next owner would begin before a commit that is acknowledged after it."""
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n1.conv()
        ann = await n2.join(1)
        await send(ann, conv, "a")
        nodes.store.commits.close()
        asked = await ann.send("send", conv=conv, key="b", kind="text", body="b")
        await trio.sleep(0.1)
        n1.placement.draining = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(n1.cluster.leave)
            await trio.sleep(FINISH_TIMEOUT_S / 2)
            assert not n2.owns(conv)
            nodes.store.commits.open()
        assert (await ann.reply(asked))["seq"] == 2


@pytest.mark.parametrize("faults", [0, 1, 3])
async def test_what_a_dead_node_has_acknowledged_is_told_however_often_it_cannot_be_loaded(
    autojump_clock: MockClock, faults: int
) -> None:
    """Nobody asks for it: who takes it over is the only one to know of it."""
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        ann, bob = await n2.join(1), await n1.join(int(conv.rpartition("/")[2]))
        assert await send(ann, conv, "a") == [1]
        assert await seqs(bob, 1) == [1]
        nodes.network.part(n2.inbox, n1.inbox, both=False)
        assert await send(ann, conv, "b") == [2]
        n2.kill()
        nodes.store.loads.faults += [Unavailable("away")] * faults
        assert await seqs(bob, 1) == [2]
        assert n1.owns(conv)
        assert not nodes.store.loads.faults
