"""What the plan for many nodes multiplies is measured on nodes that really hear each other."""

from __future__ import annotations

import trio

from actors.cluster import words as w
from actors.cluster.hearing import hear
from bench.cluster import micro


async def test_a_user_who_is_heard_of_is_known_to_be_elsewhere() -> None:
    peer, _ = micro.two_ends()
    hear(peer.cluster, peer, w.Here([5, 6], []))
    assert peer.cluster.node.registry.online(5)
    assert not peer.cluster.node.registry.online(7)
    await trio.lowlevel.checkpoint()


async def test_envelopes_that_say_nothing_keep_a_link_going() -> None:
    here, there = micro.two_ends()
    here.begin([], [])
    here.flush()
    (first,) = await there.cluster.bus.receive()
    assert there.link.hear(w.decode(first), 0.0).begins
    there.link.hear(w.decode(w.encode(here.link.seal([], 0.0))), 0.0)
    assert (there.link.heard_session, there.link.heard) == (here.link.session, 2)
