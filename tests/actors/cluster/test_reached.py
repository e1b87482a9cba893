"""Who has pulled what they lacked is live again, and knows of everything, whoever has answered."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio import Event
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.cluster import words as w
from broker.commands import reading
from tests.actors.cluster.nodes import (
    CONV,
    ClusterNode,
    Nodes,
    Owner,
    nodes_of,
    nothing_more,
    one_node,
    pulled,
    send,
    seqs,
    store_entries,
)
from tests.helpers.peer import Peer


class PagesBesideTurns:
    """Each page of history is read in a task beside the turn, as of a turn with many, and waits to
    be let through."""

    def __init__(self, nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting: list[Event] = []
        self._read = nodes.store.read
        monkeypatch.setattr(nodes.store, "read", self._hold)
        monkeypatch.setattr(reading, "ANSWERS_BEFORE_PAGES_MAX", 0)

    async def _hold(self, conv: str, **which: Any) -> list[bytes]:
        gate = Event()
        self.waiting.append(gate)
        await gate.wait()
        return await self._read(conv, **which)


async def test_the_page_of_a_former_owner_is_not_all_where_the_next_has_told_more() -> None:
    async with one_node() as n:
        bob_there, bob = await n.join_connection(2)
        former, owner = Owner(n, "in2"), Owner(n, "in3")
        former.join(1, 3, 2)
        former.say(w.Behind(CONV, 3))
        assert (await bob.event())["head"] == 3
        owner.join(2, 3, 2, doubt=True)
        owner.batch(4)
        await pulled(n, bob_there, 3, 3)
        event = await bob.event()
        assert (event["t"], event["head"]) == ("behind", 4)
        owner.batch(5)
        await nothing_more([bob])
        await pulled(n, bob_there, 5, 5)
        owner.batch(6)
        assert await seqs(bob, 1) == [6]


async def test_who_has_pulled_while_it_is_taken_up_here_is_told_what_was_not_told_yet() -> None:
    """What tells them is the follower, until its conversation knows its state."""
    async with one_node() as n:
        bob_there, bob = await n.join_connection(2)
        await store_entries(n.nodes.store, CONV, 1, 4)
        former = Owner(n, "in2")
        former.join(1, 1, 2)
        former.say(w.Behind(CONV, 3))
        assert (await bob.event())["head"] == 3
        n.nodes.store.loads.close()
        n.own(CONV, 2)
        n.node.registry.conversation(CONV)
        await wait_all_tasks_blocked()
        await pulled(n, bob_there, 3, 3)
        n.nodes.store.loads.open()
        assert await seqs(bob, 1) == [4]


async def test_who_has_pulled_less_than_was_told_is_behind_while_it_is_given_away() -> None:
    async with one_node() as n:
        (bob_there, bob), ann = await n.join_connection(2), await n.join(1)
        n.own(CONV, 1)
        assert await send(ann, CONV, "a", "b") == [1, 2]
        assert await seqs(bob, 2) == [1, 2]
        conversation = n.node.registry.conversations[CONV]
        bob_there.fall_behind(conversation)
        n.node.flusher.kick()
        assert (await bob.event())["head"] == 2
        n.node.registry.withdraw(conversation)
        assert CONV not in n.node.registry.conversations
        bob_there.reached(CONV, 1, 1)
        n.node.flusher.kick()
        assert (await bob.event())["head"] == 2
        assert bob_there.behind == {CONV}


async def test_who_has_not_pulled_all_is_told_nothing_new() -> None:
    async with one_node() as n:
        bob_there, bob = await n.join_connection(2)
        owner = Owner(n, "in2")
        owner.join(1, 3, 2)
        owner.say(w.Behind(CONV, 3))
        assert (await bob.event())["head"] == 3
        owner.batch(4)
        await pulled(n, bob_there, 2, 3)
        owner.batch(5)
        await nothing_more([bob])
        assert bob_there.behind


# A page that was read while its conversation moved


async def moves_with_a_page_out(nodes: Nodes, pages: PagesBesideTurns, conv: str) -> None:
    """The page takes too long: its conversation is abandoned, and the other node's."""
    n1, n2 = nodes.running
    await nodes.until(lambda: len(pages.waiting) == 1)
    await n1.placement.leave()
    await nodes.until(lambda: n2.owns(conv))


async def behind(n: ClusterNode, conv: str) -> tuple[Any, Any]:
    """A user of a conversation who has to pull it, there."""
    user = int(conv.rpartition("/")[2]) if not n.owns(conv) else 1
    connection, peer = await n.join_connection(user)
    live = n.node.registry.live(conv)
    assert live is not None
    connection.fall_behind(live)
    n.node.flusher.kick()
    assert (await peer.event())["t"] == "behind"
    return connection, peer


async def test_who_pulled_from_what_was_ours_is_told_by_the_follower_that_it_is_now(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n1.conv()
        bob = await n2.join(int(conv.rpartition("/")[2]))
        assert await send(bob, conv, "a", "b") == [1, 2]
        ann_there, ann = await behind(n1, conv)
        with monkeypatch.context() as patch:
            pages = PagesBesideTurns(nodes, patch)
            asked = await ann.send("history", conv=conv, after=0)
            await moves_with_a_page_out(nodes, pages, conv)
            pages.waiting[0].set()
            page = await ann.reply(asked)
        assert [entry["seq"] for entry in page["entries"]] == [1, 2]
        assert await send(bob, conv, "c") == [3]
        assert await seqs(ann, 1) == [3]
        assert not ann_there.behind


async def test_who_pulled_from_the_owner_before_is_told_by_the_owner_that_is_here_now(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n1.conv()
        ann = await n1.join(1)
        first = await n2.join(int(conv.rpartition("/")[2]))
        assert await send(ann, conv, "a", "b") == [1, 2]
        assert await seqs(first, 2) == [1, 2]
        bob_there, bob = await behind(n2, conv)
        with monkeypatch.context() as patch:
            pages = PagesBesideTurns(nodes, patch)
            asked = await bob.send("history", conv=conv, after=0)
            await moves_with_a_page_out(nodes, pages, conv)
            await nodes.until(lambda: len(pages.waiting) == 2)  # it is asked again at home
            pages.waiting[0].set()  # the owner before answers it, too
            await wait_all_tasks_blocked(0.003)
            pages.waiting[1].set()
            page = await bob.reply(asked)
        assert [entry["seq"] for entry in page["entries"]] == [1, 2]
        assert await send(ann, conv, "c") == [3]
        assert await seqs(bob, 1) == [3]
        assert not bob_there.behind


# A page whose way back is lost


async def with_bob_behind(nodes: Nodes) -> tuple[ClusterNode, ClusterNode, str, Peer, Peer]:
    """Bob, at the other node than the owner's, lacks 3 and 4."""
    n1, n2 = nodes.running
    conv = n1.conv()
    ann = await n1.join(1)
    bob_there, bob = await n2.join_connection(int(conv.rpartition("/")[2]))
    assert await send(ann, conv, "a", "b") == [1, 2]
    assert await seqs(bob, 2) == [1, 2]
    bob_there.fall_behind(n2.cluster.following.followers[conv])
    n2.node.flusher.kick()
    assert (await bob.event())["t"] == "behind"
    assert await send(ann, conv, "c", "d") == [3, 4]
    await trio.sleep(0.1)
    return n1, n2, conv, ann, bob


async def test_nobody_is_live_by_a_page_that_is_dropped_since_it_is_asked_for_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2, conv, ann, bob = await with_bob_behind(nodes)
        pages = PagesBesideTurns(nodes, monkeypatch)
        asked = await bob.send("history", conv=conv, after=2)
        await nodes.until(lambda: len(pages.waiting) == 1)
        heartbeats = []

        def lose_one(envelope: w.Envelope, to: str) -> bool:
            mine = envelope.sender == n2.inbox and not heartbeats
            if mine:
                heartbeats.append(envelope)
            return mine

        nodes.network.lose = lose_one
        session = n2.peer(n1).link.session
        await nodes.until(lambda: n2.peer(n1).link.session != session)
        await trio.sleep(0.5)
        pages.waiting[0].set()
        await nodes.until(lambda: len(pages.waiting) == 2)
        await trio.sleep(0.05)
        assert await send(ann, conv, "e") == [5]
        await trio.sleep(0.05)
        pages.waiting[1].set()
        page = await bob.reply(asked)
        assert not bob.events, "5 before 3 and 4"
        assert [entry["seq"] for entry in page["entries"]] == [3, 4, 5]
        assert await send(ann, conv, "f") == [6]
        assert await seqs(bob, 1) == [6]


async def test_nobody_who_has_a_page_is_deaf_as_what_came_after_it_was_lost(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However words are shared out among envelopes."""
    async with nodes_of("n1", "n2") as nodes:
        n1, _, conv, ann, bob = await with_bob_behind(nodes)
        monkeypatch.setattr("actors.cluster.peer.ENVELOPE_MAX_BYTES", 16)
        after: list[w.Envelope] = []

        def lose(envelope: w.Envelope, to: str) -> bool:
            answered = any(isinstance(word, w.Answer) for word in envelope.words)
            if envelope.sender == n1.inbox and (answered or after):
                after.append(envelope)
            return 2 <= len(after) <= 4

        nodes.network.lose = lose
        page = await bob.ok("history", conv=conv, after=2)
        assert [entry["seq"] for entry in page["entries"]] == [3, 4]
        await trio.sleep(10)
        assert len(after) > 4
        assert await send(ann, conv, "e") == [5]
        assert await seqs(bob, 1) == [5]
