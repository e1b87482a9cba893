"""How far conversations are: asked of those who write them, wherever they are."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.cluster import words as w
from actors.cluster.heads import TIMEOUT_S, Asker
from storage.errors import Unavailable
from storage.names import slot_of
from tests.actors.cluster.nodes import LEASE_MS, Nodes, nodes_of, send, seqs, store_entries
from tests.helpers.peer import Peer


async def test_each_writer_tells_of_its_own(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2", "n3") as nodes:
        ann = await nodes.running[0].join(1)
        convs = [n.conv() for n in nodes.running]
        for number, conv in enumerate(convs):
            await send(ann, conv, *[f"{conv}{n}" for n in range(number + 1)])
        for n in nodes.running:
            heads = await n.cluster.heads.of(1, convs)
            assert {conv: found.head.seq for conv, found in heads.items()} == dict(
                zip(convs, (1, 2, 3), strict=True)
            )
            assert all(found.head.ts and found.since == 0 for found in heads.values())
        assert await nodes.running[0].cluster.heads.of(1, []) == {}


async def test_what_is_not_active_is_taken_up_to_be_sure(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        await store_entries(nodes.store, conv, 1, 4)
        heads = await n1.cluster.heads.of(1, [conv])
        assert heads[conv].head.seq == 4


async def test_only_what_is_durable_is_told(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        ann = await n2.join(1)
        await send(ann, conv, "a")
        nodes.store.commits.close()
        id_ = await ann.send("send", conv=conv, key="b", kind="text", body="b")
        await wait_all_tasks_blocked()
        assert (await n1.cluster.heads.of(1, [conv]))[conv].head.seq == 1
        nodes.store.commits.open()
        await ann.reply(id_)
        assert (await n1.cluster.heads.of(1, [conv]))[conv].head.seq == 2


async def test_one_that_has_gone_elsewhere_is_asked_there(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        ann = await n1.join(1)
        await send(ann, conv, "a")
        n2.kill()
        started = trio.current_time()
        assert (await n1.cluster.heads.of(1, [conv]))[conv].head.seq == 1
        assert trio.current_time() - started < 2 * LEASE_MS / 1000


async def test_a_writer_that_does_not_answer_is_an_outage(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        nodes.network.part(n1.inbox, n2.inbox)
        started = trio.current_time()
        with pytest.raises(Unavailable):
            await n1.cluster.heads.of(1, [conv])
        assert trio.current_time() - started <= TIMEOUT_S + 1
        assert not n1.cluster.heads._answers


async def test_a_conversation_that_fails_or_is_anothers_is_left_out(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        mine, other = n1.conv(), n2.conv()
        nodes.store.loads.faults = [Unavailable("away")]
        with trio.fail_after(1):
            assert await Asker(n1.node, 1, [mine, other]).wait() == {}
            assert list(await Asker(n1.node, 1, [mine, other]).wait()) == [mine]
            assert await Asker(n1.node, 1, []).wait() == {}


async def test_who_looks_at_a_list_sees_what_other_nodes_have_in_hand(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        other = int(conv.rpartition("/")[2])
        ann, bob = await n2.join(1), await n1.join(other)
        await send(ann, conv, "a", "b")
        assert slot_of(conv) in n2.placement.owned
        (found,) = (await bob.ok("sync", cursors={conv: 1}))["conversations"]
        assert (found["head"], [entry["seq"] for entry in found["entries"]]) == (2, [2])


async def kicked_while_asking(nodes: Nodes) -> tuple[Peer, Peer, str, int]:
    """Ann, Bob, their group, and his `sync`: the store was asked before he was kicked with 2, and
    the writer is asked after that; 3 is not for him."""
    n1, n2 = nodes.running
    ann, bob = await n1.join(1), await n2.join(2)
    made = await ann.ok("group.create", title="Tea", members=[2], history="joined")
    conv = made["conv"]
    await seqs(bob, 1)
    nodes.network.lose = lambda e, to: any(type(word) is w.AskHeads for word in e.words)
    asked = await bob.send("sync", cursors={conv: 1})
    await trio.sleep(TIMEOUT_S / 10)
    nodes.network.lose = None
    await ann.ok("group.kick", conv=conv, user=2)
    await send(ann, conv, "not for bob")
    return ann, bob, conv, asked


async def test_who_is_kicked_while_they_ask_is_not_shown_what_came_after(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        _, bob, _, asked = await kicked_while_asking(nodes)
        assert (await bob.reply(asked))["conversations"] == []


async def test_who_came_again_while_they_ask_is_not_shown_what_was_between(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        ann, bob, conv, asked = await kicked_while_asking(nodes)
        await ann.ok("group.invite", conv=conv, users=[2])
        (found,) = (await bob.reply(asked))["conversations"]
        assert [entry["seq"] for entry in found["entries"]] == [4]


async def test_a_node_that_has_lost_its_lease_tells_of_nothing(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        ann = await n2.join(1)
        await send(ann, conv, "a")
        n2.placement._good_until = float("-inf")
        found: list[tuple[str, int, int, int]] = []
        n1.cluster.heads.told = lambda word: found.extend(word.heads)  # type: ignore[method-assign]
        await n2.cluster.heads.answer(n2.peer(n1), w.AskHeads(1, 1, [conv]))
        await wait_all_tasks_blocked()
        assert found == []
