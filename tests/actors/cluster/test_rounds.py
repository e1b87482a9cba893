"""When everybody has heard everything, and what waits for it: nobody is told past a gap because the
bus, or a node, stood still for a while and lost nothing."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from actors.cluster import words as w
from actors.cluster.cluster import TICK_S
from actors.cluster.here import ANNOUNCE_TIMEOUT_S
from tests.actors.cluster.nodes import (
    ClusterNode,
    Nodes,
    events,
    nodes_of,
    nothing_more,
    send,
    seqs,
)
from tests.helpers.peer import Peer

ROUND_S = 5 * TICK_S
"""Two rounds of two ticks each, and the tick before them."""


async def test_what_was_said_is_settled_after_two_rounds(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, _ = nodes.running
        said = n1.node.now()
        assert n1.cluster.rounds.settled <= said
        await trio.sleep(ROUND_S)
        assert n1.cluster.rounds.settled > said


async def test_who_is_alone_has_nobody_to_wait_for(autojump_clock: MockClock) -> None:
    async with nodes_of("n1") as nodes:
        (n1,) = nodes.running
        said = n1.node.now()
        await trio.sleep(ROUND_S)
        assert n1.cluster.rounds.settled > said


async def test_while_the_bus_stands_still_nothing_is_settled(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, _ = nodes.running
        nodes.network.hold()
        said = n1.node.now()
        await trio.sleep(2 * ROUND_S)
        assert n1.cluster.rounds.settled <= said
        nodes.network.release()
        await trio.sleep(2 * ROUND_S)
        assert n1.cluster.rounds.settled > said


async def test_a_link_that_begins_anew_does_not_hold_it_up_for_ever(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        nodes.network.part(n1.inbox, n2.inbox)
        said = n1.node.now()
        await trio.sleep(2 * ROUND_S)
        assert n1.cluster.rounds.settled <= said
        nodes.network.cut.clear()
        await nodes.until(lambda: n1.cluster.rounds.settled > said)


async def test_a_node_that_is_dead_or_has_left_is_not_waited_for(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2", "n3") as nodes:
        n1, n2, n3 = nodes.running
        n3.kill()
        await n2.leave()
        said = n1.node.now()
        await nodes.until(lambda: n1.cluster.rounds.settled > said)


def standstill(nodes: Nodes) -> tuple[ClusterNode, ClusterNode, str, int]:
    """The owner of a conversation of user 1, another node, and the other user of the conversation,
    who is to come to that node: the bus stands still."""
    owner, away, *_ = nodes.running
    conv = owner.conv()
    nodes.network.hold()
    return owner, away, conv, int(conv.rpartition("/")[2])


async def unheard(
    owner: ClusterNode, away: ClusterNode, conv: str, other: int
) -> tuple[Peer, Peer]:
    """User 1, who writes two entries, and the other one, who has come before and knows of none."""
    ann, bob = await owner.join(1), await away.join(other)
    assert (await bob.ok("sync", cursors={}, limit=10))["conversations"] == []
    await send(ann, conv, "a", "b")
    return ann, bob


async def test_who_came_unheard_of_is_behind_where_they_may_have_missed_something(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        owner, away, conv, other = standstill(nodes)
        ann, bob = await unheard(owner, away, conv, other)
        nodes.network.release()
        assert (await events(bob, 1, "behind"))[0]["conv"] == conv
        assert await send(ann, conv, "c") == [3]
        page = await bob.ok("history", conv=conv, after=0, limit=10)
        assert [entry["seq"] for entry in page["entries"]] == [1, 2, 3]
        await send(ann, conv, "d")
        assert await seqs(bob, 1) == [4]


async def test_who_came_unheard_of_is_late_until_all_is_settled(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        owner, away, conv, other = standstill(nodes)
        bob = await away.join(other)
        assert away.cluster.here.late(other)
        await bob.ok("sync", cursors={}, limit=10)
        nodes.network.release()
        await trio.sleep(2 * ROUND_S)
        assert not away.cluster.here.late(other)
        await send(await owner.join(1), conv, "a")
        assert await seqs(bob, 1) == [1]
        await nothing_more([bob])


async def test_who_leaves_is_late_no_more(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2") as nodes:
        _, away, _, other = standstill(nodes)
        await away.cluster.here.announce({other: False})
        assert away.cluster.here.late(other)
        away.cluster.here.withdraw([other])
        assert not away.cluster.here.late(other)


async def test_at_a_node_that_may_be_held_for_dead_everybody_is_late(
    autojump_clock: MockClock,
) -> None:
    """Others wait for it no more, and tell it nothing, until it finds out and begins anew."""
    async with nodes_of("n1", "n2") as nodes:
        _, n2 = nodes.running
        await n2.join(5)
        assert not n2.cluster.here.late(5)
        n2.placement._good_until = n2.node.now()
        assert n2.cluster.here.late(5)


async def test_while_a_link_begins_anew_everybody_is_late(autojump_clock: MockClock) -> None:
    """The other node may have dropped its half, and with it all who are here."""
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        await n2.join(5)
        nodes.network.part(n2.inbox, n1.inbox, both=False)
        await trio.sleep(2 * TICK_S)
        nodes.network.cut.clear()
        await nodes.until(lambda: n2.cluster.here.late(5))
        await nodes.until(lambda: not n2.cluster.here.late(5))


async def test_a_conversation_is_not_forgotten_before_all_have_heard_of_it(
    autojump_clock: MockClock,
) -> None:
    """Else who came unheard of would be told of the next entry without the ones before."""
    async with nodes_of("n1", "n2", passivate_ms=500) as nodes:
        owner, away, conv, other = standstill(nodes)
        _, bob = await unheard(owner, away, conv, other)
        await trio.sleep(ANNOUNCE_TIMEOUT_S)
        assert conv in owner.node.registry.conversations
        nodes.network.release()
        await nodes.until(lambda: conv not in owner.node.registry.conversations)
        assert (await bob.event("behind"))["conv"] == conv


async def test_what_was_told_to_less_than_all_is_not_handed_over_as_known(
    autojump_clock: MockClock,
) -> None:
    """The reader's node takes the conversation over itself, or a third does: both leave a doubt."""
    async with nodes_of("n1", "n2") as nodes:
        owner, away, conv, other = standstill(nodes)
        _, bob = await unheard(owner, away, conv, other)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(owner.placement.leave)
            await nodes.until(lambda: not owner.placement.owned)
        nodes.network.release()
        await nodes.until(lambda: away.owns(conv))
        assert (await bob.event("behind"))["conv"] == conv
        assert conv in away.node.registry.conversations


async def test_who_came_while_it_was_handed_over_is_not_told_past_a_gap(
    autojump_clock: MockClock,
) -> None:
    """The last owner hears of the reader as it finishes, and what it says of that is lost."""
    async with nodes_of("n1", "n2", "n3") as nodes:
        owner, away, conv, other = standstill(nodes)
        _, bob = await unheard(owner, away, conv, other)
        nodes.network.lose = lambda envelope, to: (
            envelope.sender == owner.inbox
            and to == away.inbox
            and any(isinstance(word, w.Join) for word in envelope.words)
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(owner.placement.leave)
            await trio.sleep(TICK_S)
            nodes.network.release()
        nodes.network.lose = None
        await nodes.until(lambda: any(n.owns(conv) for n in nodes.running if n is not owner))
        await nodes.until(lambda: not away.cluster.here.late(other))
        await send(await nodes.owner(conv).join(1), conv, "c")
        told = await bob.event()
        while told.get("conv") != conv:
            told = await bob.event()
        assert told["t"] == "behind"
