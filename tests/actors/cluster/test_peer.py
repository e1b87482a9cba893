"""Another node as a reader of conversations: told each thing once, all of it again after doubt."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.cluster import peer as module
from actors.cluster import words as w
from actors.cluster.words import Envelope
from tests.actors.cluster.nodes import ClusterNode, Nodes, nodes_of, nothing_more, send, seqs
from tests.helpers.links import in_step
from tests.helpers.peer import Peer


async def pair(nodes: Nodes) -> tuple[ClusterNode, ClusterNode, str, Peer, Peer]:
    """Ann at the owner of a conversation, Bob at another node, and their conversation."""
    n1, n2 = nodes.running
    conv = n1.conv()
    ann, bob = await n1.join(1), await n2.join(int(conv.rpartition("/")[2]))
    assert await send(ann, conv, "first") == [1]
    assert await seqs(ann, 1) == await seqs(bob, 1) == [1]
    return n1, n2, conv, ann, bob


async def test_a_batch_goes_once_to_a_node_however_many_members_are_there() -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        ann = await n1.join(1)
        there = [await n2.join(user) for user in range(2, 12)]
        conv = (await ann.ok("group.create", title="x", members=list(range(2, 12))))["conv"]
        nodes.network.carried.clear()
        await send(ann, conv, "a")
        for peer in there:
            while (await peer.event("msg"))["body"] != "a":
                pass
        batches = nodes.network.words(w.Batch)
        assert len(batches) == 1
        assert n1.peer(n2).followers_of(n1.node.registry.conversations[conv]) == 10


async def test_what_gathers_during_a_commit_goes_as_one_word_that_is_encoded_once_for_all_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded: list[int] = []
    told: dict[str, list[int]] = {}

    def count(word: Any) -> bytes:
        if isinstance(word, w.Batch):
            encoded.append(len(word.payloads))
        return w.encode(word)

    def note(envelope: Envelope, to: str) -> bool:
        sizes = [len(word.payloads) for word in envelope.words if isinstance(word, w.Batch)]
        told.setdefault(to, []).extend(sizes)
        return False

    async with nodes_of("n1", "n2", "n3") as nodes:
        n1, n2, n3 = nodes.running
        ann = await n1.join(1)
        others = [await n.join(user) for n, user in ((n2, 2), (n2, 3), (n3, 4))]
        conv = (await ann.ok("group.create", title="x", members=[2, 3, 4]))["conv"]
        for peer in others:
            await peer.event("msg")
        monkeypatch.setattr(module, "encode", count)
        nodes.network.lose = note

        nodes.store.commits.close()
        sent = [await ann.send("send", conv=conv, key="k0", kind="text", body="alone")]
        await nodes.until(lambda: nodes.store.commits.waiting == 1)
        sent += [
            await ann.send("send", conv=conv, key=f"k{n}", kind="text", body="x")
            for n in range(1, 6)
        ]
        await wait_all_tasks_blocked()
        assert not encoded, "nobody is told what is not stored"
        nodes.store.commits.open()
        for peer in others:
            assert await seqs(peer, 6) == [2, 3, 4, 5, 6, 7]
        assert [(await ann.reply(id_))["seq"] for id_ in sent] == [2, 3, 4, 5, 6, 7]
    assert (told[n2.inbox], told[n3.inbox]) == ([1, 5], [1, 5])
    assert encoded == [1, 5]


async def test_those_who_come_one_by_one_are_told_in_one_word(autojump_clock: MockClock) -> None:
    """All members of a group that is taken up are joined at once."""
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        ann = await n1.join(1)
        there = [await n2.join(user) for user in range(2, 12)]
        await ann.ok("group.create", title="x", members=list(range(2, 12)))
        await nodes.until(lambda: bool(nodes.network.words(w.Join)))
        (join,) = nodes.network.words(w.Join)
        assert isinstance(join, w.Join)
        assert sorted(join.users) == [peer.user for peer in there]
        assert join.whole


async def test_members_of_a_node_where_nobody_is_connected_cost_nothing() -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, _ = nodes.running
        ann = await n1.join(1)
        nodes.network.carried.clear()
        await send(ann, n1.conv(), "a", "b")
        assert not nodes.network.words(w.Batch, w.Join)


@pytest.mark.parametrize("lost", range(1, 6))
async def test_whichever_envelope_is_lost_members_get_all_or_are_told_to_pull(
    autojump_clock: MockClock, lost: int
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, _, conv, ann, bob = await pair(nodes)
        seen = 0

        def lose(envelope: Envelope, to: str) -> bool:
            nonlocal seen
            if envelope.sender == n1.inbox:
                seen += 1
            return envelope.sender == n1.inbox and seen == lost

        nodes.network.lose = lose
        for number in range(5):
            await send(ann, conv, f"m{number}")
        await nodes.until(lambda: seen > lost and in_step(n1.cluster))
        await send(ann, conv, "last")
        have = 1
        while have < 7:
            event = await bob.event()
            if event["t"] == "msg":
                assert event["seq"] == have + 1, "never a hole"
                have += 1
            elif event["t"] == "behind":
                page = await bob.ok("history", conv=conv, after=have)
                bob.events.clear()
                have += len(page["entries"])
        await send(ann, conv, "live")
        assert await seqs(bob, 1) == [8]


async def test_what_the_bus_refuses_is_a_loss_that_is_known_at_once(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2, conv, ann, bob = await pair(nodes)
        bus_send = n1.cluster.bus.send
        n1.cluster.bus.send = lambda to, data: False  # type: ignore[method-assign]
        await send(ann, conv, "lost")
        assert n1.peer(n2).link.lost
        assert not in_step(n1.cluster)
        n1.cluster.bus.send = bus_send  # type: ignore[method-assign]
        assert await seqs(bob, 1) == [2], "the next session begins with how far it is"
        await nodes.until(lambda: in_step(n1.cluster))


async def test_too_many_words_for_one_envelope_go_in_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ENVELOPE_MAX_BYTES", 100)
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        peer = n1.peer(n2)
        nodes.network.carried.clear()
        for number in range(20):
            peer.say(w.Behind("d/1/2", number))
        peer.say(w.Behind("x" * 500, 20))
        peer.flush()
        sent = [e for e in nodes.network.carried if e.sender == n1.inbox and e.words]
        assert [word.head for e in sent for word in e.words if isinstance(word, w.Behind)] == list(
            range(21)
        )
        assert len(sent) > 2
        assert all(len(w.encode(e)) < 200 for e in sent[:-1]), "one word may be larger"


async def test_what_may_be_missed_is_not_said_to_who_is_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "EPHEMERAL_MAX_BYTES", 100)
    async with nodes_of("n1", "n2") as nodes:
        peer = nodes.running[0].peer(nodes.running[1])
        nodes.network.carried.clear()
        peer.say(w.Behind("x" * 200, 1))
        peer.event("d/1/2", {"t": "typing"}, None, True)
        peer.event("d/1/2", {"t": "read"}, None, False)
        peer.flush()
        (event,) = nodes.network.words(w.Event)
        assert isinstance(event, w.Event)
        assert event.event == {"t": "read"}


async def test_a_mark_is_passed_when_all_before_it_was_heard(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        peer = n1.peer(n2)
        mark = peer.mark()
        assert not peer.passed(mark)
        assert not peer.out_of_reach(mark)
        await wait_all_tasks_blocked()
        assert peer.passed(mark), "its confirmation does not wait for a heartbeat"
        nodes.network.part(n1.inbox, n2.inbox)
        mark = peer.mark()
        await nodes.until(lambda: peer.out_of_reach(mark))
        assert not peer.passed(mark)


async def test_who_comes_to_a_node_is_told_there_and_no_more_when_they_go() -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2, conv, ann, bob = await pair(nodes)
        user = bob.user
        await bob.aclose()
        await nodes.until(lambda: user not in n1.peer(n2).users)
        nodes.network.carried.clear()
        await send(ann, conv, "alone")
        assert not nodes.network.words(w.Batch)
        assert not n2.cluster.following.followers
        bob = await n2.join(user)
        await send(ann, conv, "again")
        assert await seqs(bob, 1) == [3]


async def test_what_is_put_away_is_told_so_and_taken_up_without_a_pull(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2", passivate_ms=1_000) as nodes:
        n1, n2, conv, ann, bob = await pair(nodes)
        await nodes.until(lambda: conv not in n1.node.registry.conversations)
        await nodes.until(lambda: conv not in n2.cluster.following.followers)
        await send(bob, conv, "again")
        assert await seqs(bob, 1) == await seqs(ann, 1) == [2]
        await nothing_more([ann, bob])


async def test_nobody_is_put_to_rest_while_a_node_may_not_have_heard(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2", passivate_ms=1_000) as nodes:
        n1, n2, conv, ann, bob = await pair(nodes)
        # The leases say that it lives, so it is waited for.
        nodes.network.part(n1.inbox, n2.inbox)
        await send(ann, conv, "unheard")
        await nodes.until(lambda: not in_step(n1.cluster))
        for _ in range(20):
            await trio.sleep(0.2)
            assert conv in n1.node.registry.conversations
        nodes.network.cut.clear()
        assert await seqs(bob, 1) == [2]
