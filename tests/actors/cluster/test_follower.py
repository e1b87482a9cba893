"""What clients are told of another node's conversation: no entry twice, none left out."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.cluster import follower as module
from actors.cluster.follower import GAP_MAX_ENTRIES, Follower
from storage.errors import Unavailable
from tests.actors.cluster.nodes import ClusterNode, drafts, nothing_more, one_node, seqs
from tests.actors.cluster.nodes import store_entries as store
from tests.helpers.peer import Peer

CONV = "d/1/2"


async def following(n: ClusterNode, head: int) -> tuple[Follower, Peer]:
    """User 2 is told of what another node writes, from `head` on."""
    peer = await n.join(2)
    follower = Follower(n.cluster, CONV, head)
    n.cluster.following.followers[CONV] = follower
    assert follower.admit(2, 0, 0)
    assert not follower.admit(2, 0, 0)
    return follower, peer


def tell(n: ClusterNode, follower: Follower, first: int, count: int = 1) -> None:
    """A batch of the owner, as `Cluster.run` has it told."""
    follower.batch(first, drafts(first, count))
    n.node.turn.wake()
    n.node.flusher.kick()


class SlowReads:
    """Holds what reads of a node's store until it is told to go on."""

    def __init__(self, n: ClusterNode) -> None:
        self.asked: list[tuple[int, int]] = []
        self.gate = trio.Event()
        self.fault: Unavailable | None = None
        self._read = n.nodes.store.read
        n.nodes.store.read = self.read  # type: ignore[method-assign]

    async def read(
        self, conv: str, *, after: int | None = None, before: int | None = None, limit: int
    ) -> list[bytes]:
        assert after is not None
        self.asked.append((after, limit))
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return await self._read(conv, after=after, before=before, limit=limit)


async def test_batches_that_follow_are_told_as_they_come() -> None:
    async with one_node() as n:
        follower, bob = await following(n, 5)
        with trio.fail_after(2):
            tell(n, follower, 6, 2)
            tell(n, follower, 8)
            assert await seqs(bob, 3) == [6, 7, 8]
        assert follower.head == 8


async def test_what_was_told_before_is_not_told_again() -> None:
    async with one_node() as n:
        follower, bob = await following(n, 5)
        with trio.fail_after(2):
            tell(n, follower, 4, 2)
            tell(n, follower, 5, 3)
            tell(n, follower, 6, 2)
            assert await seqs(bob, 2) == [6, 7]
            await nothing_more([bob])


async def test_a_gap_is_read_from_the_store_while_later_batches_wait() -> None:
    async with one_node() as n:
        follower, bob = await following(n, 2)
        await store(n.nodes.store, CONV, 1, 6)
        slow = SlowReads(n)
        with trio.fail_after(2):
            tell(n, follower, 6)
            await wait_all_tasks_blocked()
            tell(n, follower, 7, 2)
            await nothing_more([bob])
            slow.gate.set()
            assert await seqs(bob, 6) == [3, 4, 5, 6, 7, 8]
            await nothing_more([bob])
            assert slow.asked == [(2, 3)], "what lacks, and not what waits"


async def test_a_gap_within_what_waits_is_read_too() -> None:
    async with one_node() as n:
        follower, bob = await following(n, 2)
        await store(n.nodes.store, CONV, 1, 9)
        slow = SlowReads(n)
        with trio.fail_after(2):
            tell(n, follower, 5)
            await wait_all_tasks_blocked()
            tell(n, follower, 9)
            slow.gate.set()
            assert await seqs(bob, 7) == [3, 4, 5, 6, 7, 8, 9]
            await nothing_more([bob])


async def test_a_head_that_is_ahead_of_what_was_told_is_a_gap() -> None:
    async with one_node() as n:
        follower, bob = await following(n, 1)
        await store(n.nodes.store, CONV, 1, 3)
        with trio.fail_after(2):
            follower.lack(3)
            assert await seqs(bob, 2) == [2, 3]
            follower.lack(3)
            await nothing_more([bob])


async def test_who_wrote_in_a_gap_reads_their_keys_there() -> None:
    async with one_node() as n:
        peer = await n.join(1)
        follower = Follower(n.cluster, CONV, 0)
        follower.admit(1, 0, 0)
        await store(n.nodes.store, CONV, 1, 1)
        with trio.fail_after(2):
            follower.lack(1)
            assert (await peer.event("msg"))["key"] == "k1"


async def test_too_large_a_gap_is_for_the_clients_to_pull() -> None:
    async with one_node() as n:
        follower, bob = await following(n, 1)
        slow = SlowReads(n)
        with trio.fail_after(2):
            tell(n, follower, GAP_MAX_ENTRIES + 3)
            n.node.flusher.kick()
            event = await bob.event()
            assert (event["t"], event["head"]) == ("behind", GAP_MAX_ENTRIES + 2)
            assert not slow.asked


async def test_the_largest_gap_that_is_not_too_large_is_read() -> None:
    async with one_node() as n:
        follower, bob = await following(n, 0)
        await store(n.nodes.store, CONV, 1, GAP_MAX_ENTRIES)
        with trio.fail_after(5):
            follower.lack(GAP_MAX_ENTRIES)
            assert await seqs(bob, GAP_MAX_ENTRIES) == list(range(1, GAP_MAX_ENTRIES + 1))


async def test_too_much_that_waits_is_for_the_clients_to_pull(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "GAP_PENDING_MAX_BYTES", 100)
    async with one_node() as n:
        follower, bob = await following(n, 1)
        slow = SlowReads(n)
        with trio.fail_after(2):
            tell(n, follower, 5)
            await wait_all_tasks_blocked()
            tell(n, follower, 6, 10)
            event = await bob.event()
            assert (event["t"], event["head"]) == ("behind", 15)
            slow.gate.set()
            await nothing_more([bob])


async def test_with_the_store_away_clients_are_behind_up_to_the_last_that_waited(
    autojump_clock: MockClock,
) -> None:
    async with one_node() as n:
        follower, bob = await following(n, 1)
        slow = SlowReads(n)
        slow.fault = Unavailable("away")
        tell(n, follower, 4, 2)
        await wait_all_tasks_blocked()
        slow.gate.set()
        event = await bob.event()
        assert (event["t"], event["head"]) == ("behind", 5)
        tell(n, follower, 6)
        await nothing_more([bob])
        assert follower.head == 6


async def test_a_store_that_has_less_than_was_said_makes_clients_pull() -> None:
    async with one_node() as n:
        follower, bob = await following(n, 1)
        await store(n.nodes.store, CONV, 1, 2)
        with trio.fail_after(2):
            follower.lack(4)
            event = await bob.event()
            assert (event["t"], event["head"]) == ("behind", 4)


async def test_who_was_expelled_hears_nothing_that_was_on_its_way() -> None:
    async with one_node() as n:
        follower, bob = await following(n, 1)
        await store(n.nodes.store, CONV, 1, 3)
        slow = SlowReads(n)
        with trio.fail_after(2):
            tell(n, follower, 4)
            await wait_all_tasks_blocked()
            follower.expel(2)
            follower.expel(2)
            slow.gate.set()
            await nothing_more([bob])


async def test_a_second_connection_is_told_from_where_it_came() -> None:
    async with one_node() as n:
        follower, bob = await following(n, 1)
        with trio.fail_after(2):
            tell(n, follower, 2)
            other = await n.join(2)
            tell(n, follower, 3)
            assert await seqs(bob, 2) == [2, 3]
            assert await seqs(other, 1) == [3]


async def test_who_is_admitted_during_a_gap_is_not_told_what_was_before_they_came() -> None:
    async with one_node() as n:
        follower, bob = await following(n, 1)
        await store(n.nodes.store, CONV, 1, 3)
        cid = await n.join(3)
        slow = SlowReads(n)
        with trio.fail_after(2):
            tell(n, follower, 4)
            await wait_all_tasks_blocked()
            assert follower.admit(3, 4, 5)
            n.node.flusher.kick()
            assert (await cid.event())["t"] == "behind"
            slow.gate.set()
            assert await seqs(bob, 3) == [2, 3, 4]
            await nothing_more([cid])
