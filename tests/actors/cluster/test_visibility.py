"""Nobody is told what was said while they were no member, however words and owners are lost."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from storage.errors import Unavailable
from storage.records import Append, Commit, Entry, Member, encode_entry
from tests.actors.cluster.nodes import (
    CONV,
    ClusterNode,
    Nodes,
    Owner,
    nodes_of,
    nothing_more,
    one_node,
    payload,
    pulled,
    send,
    seqs,
    store_entries,
)
from tests.actors.cluster.test_follower import SlowReads
from tests.conformance.making import append, group
from tests.helpers.peer import Peer

GROUP = "g/1"
ANN, BOB, CY = 1, 2, 3


async def make_group(n: ClusterNode) -> None:
    """Of Ann and Bob, with one entry; who comes reads what follows."""
    members = [Member(GROUP, ANN, "owner", 1), Member(GROUP, BOB, "member", 1)]
    await n.nodes.store.commit(
        Commit(appends=[append(GROUP, 1, 1)], groups=[group(1)], members=members)
    )


def of_bob(seq: int, event: str) -> bytes:
    """An entry that says what became of him."""
    body = {"event": event, "users": [BOB], "by": ANN}
    return encode_entry(Entry(seq=seq, sender=ANN, ts=1, kind="system", body=body))


async def kick_bob(n: ClusterNode) -> None:
    """He is kicked with 2, and 3 is not for him."""
    entries = [of_bob(2, "kicked"), payload(3)]
    await n.nodes.store.commit(Commit(appends=[Append(GROUP, 2, entries, 1)], gone=[(GROUP, BOB)]))


async def let_bob_go_and_come(n: ClusterNode) -> None:
    """He leaves with 2 and is back with 4; 3 is not for him."""
    entries = [of_bob(2, "left"), payload(3), of_bob(4, "joined")]
    member = Member(GROUP, BOB, "member", 4)
    await n.nodes.store.commit(Commit(appends=[Append(GROUP, 2, entries, 1)], members=[member]))


async def told(peer: Peer) -> list[Any]:
    """What was said to them so far: seqs of entries, names of all else."""
    await wait_all_tasks_blocked(0.003)
    await peer.ok("ping")
    return [event["seq"] if event["t"] == "msg" else event["t"] for event in peer.events]


async def entries_told(peer: Peer) -> list[int]:
    return [seq for seq in await told(peer) if type(seq) is int]


# A conversation that this node followed, and takes up


async def test_who_was_kicked_before_the_owner_died_is_told_nothing_that_followed() -> None:
    async with one_node() as n:
        await make_group(n)
        ann, (bob_there, bob) = await n.join(ANN), await n.join_connection(BOB)
        Owner(n, "in2", GROUP).join(1, 1, ANN, BOB)
        await kick_bob(n)  # and the owner dies before it has told anybody
        n.own(GROUP, 2)
        assert await send(ann, GROUP, "not for Bob") == [4]
        assert await seqs(ann, 3) == [2, 3, 4]
        assert await told(bob) == ["behind"], "the answer to his pull says that he is out"
        assert not bob_there.behind
        assert (await bob.error("history", conv=GROUP, after=1))["code"] == "forbidden"


async def test_who_left_and_came_again_before_the_owner_died_is_not_told_what_was_between() -> None:
    async with one_node() as n:
        await make_group(n)
        ann, bob = await n.join(ANN), await n.join(BOB)
        Owner(n, "in2", GROUP).join(1, 1, ANN, BOB)
        await let_bob_go_and_come(n)
        n.own(GROUP, 2)
        assert await send(ann, GROUP, "x") == [5]
        assert await seqs(ann, 4) == [2, 3, 4, 5]
        assert await told(bob) == ["behind"]
        page = await bob.ok("history", conv=GROUP, after=1)
        assert [entry["seq"] for entry in page["entries"]] == [4, 5]


async def test_who_was_kicked_with_words_that_a_dead_owner_could_not_say_hears_no_more(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        ann, bob, cy = await n2.join(ANN), await n1.join(BOB), await n1.join(CY)
        created = await ann.ok("group.create", title="x", members=[BOB, CY], history="joined")
        conv = created["conv"]
        assert n2.owns(conv)
        assert await seqs(bob, 1) == await seqs(cy, 1) == [1]
        nodes.network.part(n2.inbox, n1.inbox, both=False)
        await ann.ok("group.kick", conv=conv, user=BOB)
        n2.kill()
        await nodes.until(lambda: n1.owns(conv))
        assert await send(cy, conv, "not for Bob") == [3]
        assert await seqs(cy, 2) == [2, 3]
        assert await entries_told(bob) == []


# A link that begins anew


async def test_who_left_and_came_again_while_a_link_was_lost_is_not_told_what_was_between() -> None:
    async with one_node() as n:
        await make_group(n)
        ann, bob = await n.join(ANN), await n.join(BOB)
        owner = Owner(n, "in2", GROUP)
        owner.join(1, 1, ANN, BOB)
        await let_bob_go_and_come(n)
        owner.join(1, 4, ANN, BOB, doubt=True, came={BOB: 4})
        assert await seqs(ann, 3) == [2, 3, 4]
        assert await told(bob) == ["behind"]


async def test_who_was_a_member_all_the_time_is_told_what_a_lost_link_has_swallowed() -> None:
    """Whoever came with the next entry to be told has not been away either."""
    async with one_node() as n:
        ann, bob = await n.join(ANN), await n.join(BOB)
        owner = Owner(n, "in2")
        owner.join(1, 1, ANN, BOB)
        await store_entries(n.nodes.store, CONV, 1, 3)
        owner.join(1, 3, ANN, BOB, doubt=True, came={ANN: 1, BOB: 2})
        assert await seqs(ann, 2) == await seqs(bob, 2) == [2, 3]
        await nothing_more([ann, bob])


async def test_who_was_kicked_and_invited_while_words_were_lost_is_not_told_what_was_between(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        ann, bob = await n2.join(ANN), await n1.join(BOB)
        created = await ann.ok("group.create", title="x", members=[BOB, CY], history="joined")
        conv = created["conv"]
        assert n2.owns(conv)
        assert await seqs(bob, 1) == [1]
        nodes.network.part(n2.inbox, n1.inbox, both=False)
        await ann.ok("group.kick", conv=conv, user=BOB)
        assert await send(ann, conv, "not for Bob") == [3]
        await ann.ok("group.invite", conv=conv, users=[BOB])
        nodes.network.cut.clear()
        await trio.sleep(3.0)  # the loss is noticed, and made good
        assert 3 not in await entries_told(bob)
        page = await bob.ok("history", conv=conv, after=0)
        assert 3 not in [entry["seq"] for entry in page["entries"]]


# A follower that lags


async def cy_comes_during_a_gap(n: ClusterNode) -> tuple[Owner, SlowReads]:
    """Bob, who is here, lacks 2 to 5, which are read from the store when `gate` is set; 6 is the
    entry with which Cy comes."""
    owner = Owner(n, "in2")
    owner.join(1, 1, BOB)
    await store_entries(n.nodes.store, CONV, 1, 5)
    slow = SlowReads(n)
    owner.batch(5)
    await wait_all_tasks_blocked()
    owner.join(1, 5, CY, whole=False, came={CY: 6})
    return owner, slow


async def test_who_came_during_a_gap_is_told_nothing_of_it_on_a_second_connection_either() -> None:
    async with one_node() as n:
        bob, cy = await n.join(BOB), await n.join(CY)
        _, slow = await cy_comes_during_a_gap(n)
        second = await n.join(CY)
        slow.gate.set()
        assert await seqs(bob, 4) == [2, 3, 4, 5]
        assert await told(cy) == ["behind"]
        assert await entries_told(second) == []


async def test_who_came_during_a_gap_is_told_nothing_of_it_though_they_have_pulled() -> None:
    async with one_node() as n:
        (cy_there, cy), bob = await n.join_connection(CY), await n.join(BOB)
        owner, slow = await cy_comes_during_a_gap(n)
        assert (await cy.event())["t"] == "behind"
        await pulled(n, cy_there, 5, 5)  # there is nothing for Cy yet
        slow.gate.set()
        assert await seqs(bob, 4) == [2, 3, 4, 5]
        assert await entries_told(cy) == []
        await pulled(n, cy_there, 5, 5)
        owner.batch(6)
        assert await seqs(bob, 1) == [6]
        assert await entries_told(cy) == [6]


async def test_who_comes_between_a_gap_and_what_waited_for_it_is_not_told_what_waited() -> None:
    async with one_node() as n:
        bob, cy = await n.join(BOB), await n.join(CY)
        owner = Owner(n, "in2")
        owner.join(1, 1, BOB)
        await store_entries(n.nodes.store, CONV, 1, 4)
        slow = SlowReads(n)
        owner.batch(4)
        await wait_all_tasks_blocked()

        async def hear_of_cy() -> None:
            """As `Cluster.run`, in its turn."""
            async with n.cluster.delivery:
                owner.join(1, 4, CY, whole=False, came={CY: 5})
                await n.node.flusher.flush_turn()

        async with trio.open_nursery() as nursery, n.cluster.delivery:
            slow.gate.set()
            await wait_all_tasks_blocked()  # what lacked was read, and waits to be told
            nursery.start_soon(hear_of_cy)
            await wait_all_tasks_blocked()
        assert await seqs(bob, 3) == [2, 3, 4]
        assert await entries_told(cy) == []


# A conversation that is given away


async def test_who_came_with_a_commit_in_doubt_is_not_told_what_was_before_it(
    autojump_clock: MockClock,
) -> None:
    """Its owner goes, and follows the next: not for those whose coming it has told nobody."""
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        ann, bob, cy = await n1.join(ANN), await n1.join(BOB), await n1.join(CY)
        asked = {"members": [BOB], "history": "joined", "join": "open", "visibility": "public"}
        conv = (await ann.ok("group.create", title="x", **asked))["conv"]
        assert n1.owns(conv)
        nodes.store.commits.close()
        first = await bob.send("send", conv=conv, key="1", kind="text", body="first")
        await nodes.until(lambda: nodes.store.commits.waiting == 1)
        await bob.send("send", conv=conv, key="2", kind="text", body="before Cy came")
        await trio.sleep(0.01)
        joined = await cy.send("group.join", conv=conv)
        await trio.sleep(0.01)
        take, answers = nodes.store.commit, trio.Event()

        async def commit_and_answer_late(commit: Commit) -> None:
            await take(commit)
            await answers.wait()

        nodes.store.commit = commit_and_answer_late  # type: ignore[method-assign]
        nodes.store.commits.open()
        await bob.reply(first)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(n1.placement.leave)  # gives up waiting, and abandons it
            await nodes.until(lambda: conv in n1.cluster.following.followers)
            assert n1.cluster.following.followers[conv].members.keys() == {ANN, BOB}
            await nodes.until(lambda: n2.owns(conv))
            await nodes.until(lambda: conv in n2.node.registry.conversations)
            answers.set()
        await cy.reply(joined)
        await nodes.until(lambda: n2.node.registry.conversations[conv].loaded)
        members = await nodes.store.members(conv, after=0, limit=9)
        (since,) = [member.since for member in members if member.user == CY]
        assert since > 2, "something was said before"
        assert all(seq >= since for seq in await entries_told(cy))


async def test_who_pulls_before_a_gap_is_read_is_told_to_pull_once_more_and_not_at_each_pull() -> (
    None
):
    async with one_node() as n:
        (cy_there, cy), bob = await n.join_connection(CY), await n.join(BOB)
        _, slow = await cy_comes_during_a_gap(n)
        for _ in range(3):
            await pulled(n, cy_there, 5, 5)
        assert await told(cy) == ["behind"]
        slow.gate.set()
        assert await seqs(bob, 4) == [2, 3, 4, 5]
        assert await told(cy) == ["behind", "behind"]


async def test_a_connection_that_is_being_opened_hears_nothing_before_its_welcome() -> None:
    """But later that it has to pull, if it was not live by then."""
    async with one_node() as n:
        bob, _ = await n.join(BOB), await n.join(CY)
        owner, slow = await cy_comes_during_a_gap(n)
        opened, second = await n.join_connection(CY)
        assert await told(second) == []
        assert opened.behind == {CONV}
        slow.gate.set()
        assert await seqs(bob, 4) == [2, 3, 4, 5]
        assert await told(second) == ["behind"]
        await pulled(n, opened, 5, 5)
        owner.batch(6)
        assert await told(second) == ["behind", 6]


# Put out in doubt, while behind


async def put_out_in_doubt_while_behind(nodes: Nodes) -> tuple[Peer, Peer, str]:
    """Bob was slow for a moment, and then Ann's kick timed out, but was stored."""
    (n1,) = nodes.running
    ann = await n1.join(1)
    there, bob = await n1.join_connection(BOB)
    conv = (await ann.ok("group.create", title="x", members=[BOB]))["conv"]
    there.fall_behind(n1.node.registry.conversations[conv])
    nodes.store.commits.faults.append(Unavailable("time-out", applied=None))
    assert (await ann.ask("group.kick", conv=conv, user=BOB))["t"] == "error"
    await wait_all_tasks_blocked(0.003)
    assert (await bob.ask("history", conv=conv, after=1))["t"] == "error"
    bob.events.clear()
    return ann, bob, conv


async def test_who_was_put_out_while_behind_is_live_when_they_are_invited_again() -> None:
    async with nodes_of("n1") as nodes:
        ann, bob, conv = await put_out_in_doubt_while_behind(nodes)
        await ann.ok("group.invite", conv=conv, users=[BOB])
        (seq,) = await send(ann, conv, "welcome back")
        assert (await entries_told(bob))[-1] == seq


async def test_who_was_put_out_while_behind_is_told_no_head() -> None:
    async with nodes_of("n1") as nodes:
        ann, bob, conv = await put_out_in_doubt_while_behind(nodes)
        await send(ann, conv, "not", "for", "Bob")
        assert (await bob.ok("sync", cursors={conv: 1}))["conversations"] == []
        await nothing_more([bob])
