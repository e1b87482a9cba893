"""What comes over the bus: strange envelopes and failing words harm nothing but themselves."""

from __future__ import annotations

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.cluster import words as w
from actors.cluster.hearing import _TABLE, hear
from storage.names import slot_of
from storage.records import SlotRecord
from tests.actors.cluster.nodes import nodes_of, nothing_more, one_node, send, seqs
from tests.actors.cluster.test_words import EXAMPLES
from tests.helpers.links import in_step


def test_every_word_means_something() -> None:
    assert set(_TABLE) == {type(word) for word in EXAMPLES}


@pytest.mark.parametrize("word", EXAMPLES, ids=lambda word: type(word).__name__)
async def test_a_word_about_nothing_that_is_known_does_nothing(word: w.AnyWord) -> None:
    """As from a node that speaks of what this one has forgotten."""
    async with one_node() as n:
        ann = await n.join(1)
        peer = n.cluster.peer("in2")
        if not isinstance(word, w.Ask):
            hear(n.cluster, peer, word)
        await wait_all_tasks_blocked()
        assert n.node.counters.crashes == 0
        await nothing_more([ann], but=("conv",))


async def test_a_word_that_fails_is_logged_and_the_next_is_heard(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        ann = await n2.join(1)
        conv = n1.conv()
        peer = n1.peer(n2)
        peer.say(w.Join(conv, 1, 0, [1], [0], True, False))
        peer.say(w.Batch(conv, 1, [b"no entry"], [], []))
        peer.say(w.Event(conv, {"t": "read", "conv": conv, "user": 2, "seq": 1}))
        n1.node.flusher.kick()
        assert (await ann.event("read"))["seq"] == 1
        assert n2.node.counters.crashes == 1
        assert any("Batch" in record.getMessage() for record in caplog.records)


async def test_what_is_no_envelope_is_dropped_and_the_link_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        ann = await n1.join(1)
        for data in (b"", b"\xc1", b"\xff" * 100, w.encode(["in-n1", 1])):
            n2.cluster.bus.accept(data)  # type: ignore[attr-defined]
        assert await send(ann, conv, "a") == [1]
        assert sum("unreadable" in record.getMessage() for record in caplog.records) == 4


async def test_its_own_voice_is_no_other_node() -> None:
    async with one_node() as n:
        n.cluster._open(w.encode(w.Envelope(n.inbox, 1, 1, 0, 0, [w.Suspect()])))
        assert not n.cluster.peers


async def test_the_first_word_of_a_node_that_nobody_knew_is_heard(
    autojump_clock: MockClock,
) -> None:
    async with one_node() as n:
        start = w.Start([7], [])
        n.cluster._open(w.encode(w.Envelope("in9", 1, 1, 0, 0, [start])))
        assert n.cluster.peers["in9"].users == {7: False}
        assert n.node.registry.online(7)


async def test_a_command_of_an_unknown_kind_or_a_defect_is_answered() -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        ann = await n1.join(1)
        n2.node.open_table = {}
        reply = await ann.ask("send", conv=conv, key="k", kind="text", body="a")
        assert (reply["t"], reply["code"]) == ("error", "internal")
        assert n2.node.counters.crashes == 1


async def test_who_is_told_beside_one_connection_is_told_on_the_others() -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        connection, one = await n2.join_connection(1)
        other = await n2.join(1)
        n1.peer(n2).say(w.Tell([1, 2], {"t": "x"}, connection.number, ""))
        n1.peer(n2).say(w.Tell([1], {"t": "y"}, 0, "d/1/2"))
        n1.node.flusher.kick()
        assert (await other.event())["t"] == "x"
        await nothing_more([one, other])
        connection.behind = {"d/1/2"}
        n1.peer(n2).say(w.Tell([1], {"t": "y"}, 0, "d/1/2"))
        n1.node.flusher.kick()
        assert (await one.event())["t"] == "y"
        await nothing_more([other])


async def test_news_of_slots_is_believed_before_the_next_look() -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        slot = slot_of(n2.conv())
        record = SlotRecord(slot, n2.placement.me.incarnation, 99)
        n2.cluster.tell_slots([record])
        await wait_all_tasks_blocked(0.003)
        assert n1.placement.table[slot] == record


async def test_an_answer_to_nothing_is_passed_over(autojump_clock: MockClock) -> None:
    """Its client was told long ago that the outcome is unknown."""
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        ann = await n1.join(1)
        conv = n2.conv()
        nodes.network.hold()
        id_ = await ann.send("send", conv=conv, key="k", kind="text", body="a")
        assert (await ann.reply(id_))["code"] == "unavailable"
        nodes.network.release()
        await nodes.until(lambda: in_step(n1.cluster) and in_step(n2.cluster))
        assert await send(ann, conv, "b")
        await seqs(ann, 1)
        await ann.ok("ping")
        assert not ann._replies, "nothing is answered twice"
