"""A mark is passed when the other node has heard all before it, and all that it has said before is
heard here: not where words were lost in between. A conversation is given away by marks."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.cluster import words as w
from actors.cluster.words import Envelope
from storage.names import slot_of
from tests.actors.cluster.nodes import USERS, ClusterNode, nodes_of, send, seqs
from tests.helpers.peer import Peer


def one_that_goes_to(heir: ClusterNode, owner: ClusterNode, other: ClusterNode) -> str:
    """A conversation of user 1 that is the heir's, and not the other's, when its owner leaves."""
    for user in range(2, USERS + 1):
        conv = f"d/1/{user}"
        score = heir.placement._score
        theirs, others = (score(n.node.name, slot_of(conv)) for n in (heir, other))
        if owner.owns(conv) and theirs > others:
            return conv
    raise AssertionError("no conversation would go there")


async def told(peer: Peer) -> list[Any]:
    """Of entries: their seqs, or that they are there."""
    await peer.ok("ping")
    found = [event for event in peer.events if event["t"] in ("msg", "behind")]
    return [event["seq"] if event["t"] == "msg" else event["t"] for event in found]


async def test_a_mark_on_a_link_that_is_to_begin_anew_is_never_passed(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        peer = n1.peer(n2)
        before = peer.mark()
        await wait_all_tasks_blocked()
        assert peer.passed(before)
        peer.link.lost = True
        peer.say(w.Behind("d/1/2", 1))  # dropped
        mark, number = peer.mark(), peer.link.number
        await wait_all_tasks_blocked()
        n2.peer(n1).mark()
        await wait_all_tasks_blocked()
        assert peer.link.confirmed >= number, "the envelope was heard, without the word"
        assert not peer.passed(mark)
        await nodes.until(lambda: not peer.link.lost)
        await nodes.settled()
        assert not peer.passed(mark)
        assert peer.out_of_reach(mark)


async def test_what_is_said_on_a_link_that_is_to_begin_anew_is_told_by_the_next_owner(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2", "n3") as nodes:
        owner, away, heir = nodes.running
        conv = one_that_goes_to(heir, owner, away)
        ann, bob = await owner.join(1), await away.join(int(conv.rpartition("/")[2]))
        assert await send(ann, conv, "a") == [1]
        assert await seqs(bob, 1) == [1]
        link = owner.peer(away).link

        async def say_other_things() -> None:
            while owner.inbox in away.cluster.peers:
                away.peer(owner).mark_dirty()
                away.node.flusher.kick()
                await trio.sleep(0.0005)

        nodes.nursery.start_soon(say_other_things)
        await nodes.until(lambda: link.confirmed == link.number)
        number = link.number
        await nodes.until(lambda: link.number > number)
        link.lost = True  # as late confirmations of an earlier session make it, until the next tick
        assert await send(ann, conv, "b") == [2]
        await owner.leave()
        await nodes.settled()
        await trio.sleep(5.0)
        assert await told(bob) in ([2], ["behind"])


async def test_who_came_by_words_that_were_lost_is_told_by_the_next_owner(
    autojump_clock: MockClock,
) -> None:
    """The owner hears that all was heard, and not of the user whom that was not told."""
    async with nodes_of("n1", "n2", "n3") as nodes:
        owner, away, heir = nodes.running
        conv = one_that_goes_to(heir, owner, away)
        user = int(conv.rpartition("/")[2])
        ann = await owner.join(1)

        def of_users(envelope: Envelope, to: str) -> bool:
            spoken = any(isinstance(word, w.Here | w.Start) for word in envelope.words)
            return (envelope.sender, to) == (away.inbox, owner.inbox) and spoken

        nodes.network.lose = of_users
        bob = await away.join(user)
        assert away.cluster.here.late(user)
        assert (await bob.ok("sync", cursors={}, limit=10))["conversations"] == []
        assert await send(ann, conv, "a") == [1]
        assert await seqs(ann, 1) == [1]
        await owner.leave()
        nodes.network.lose = None
        await nodes.settled()
        await nodes.until(lambda: not away.cluster.here.late(user))
        cy = await heir.join(1)
        assert await send(cy, conv, "b") == [2]
        await trio.sleep(1.0)
        assert (await told(bob))[0] in (1, "behind")
