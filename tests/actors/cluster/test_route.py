"""The way to another node's conversation: in order, never twice, and never without an end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.cluster import route as module
from actors.cluster import words as w
from actors.cluster.route import COMMAND_TIMEOUT_S, REPEATABLE
from actors.wires import WS_JSON
from broker.commands.tables import open_table
from broker.wire.commands import Send
from storage.memory import MemoryNetwork
from storage.names import slot_of
from storage.records import SlotRecord
from tests.actors.cluster.nodes import (
    LEASE_MS,
    ClusterNode,
    Nodes,
    nodes_of,
    nothing_more,
    send,
    seqs,
)
from tests.helpers.peer import Peer

LEASE_S = LEASE_MS / 1000


async def several(peer: Peer, conv: str, count: int, first: int = 0) -> list[int]:
    """So many sends in flight."""
    return [
        await peer.send("send", conv=conv, key=f"{peer.user}-{n}", kind="text", body=f"{n}")
        for n in range(first, first + count)
    ]


async def replies_in_order(peer: Peer, ids: list[int]) -> list[int]:
    """The seqs of the replies to these, which must come in their order."""
    found = []
    for id_ in ids:
        while True:
            message = await peer.carrier.receive()
            if "id" in message:
                break
            peer.events.append(message)
        assert message["id"] == id_, message
        assert message["t"] == "ok", message
        found.append(message["seq"])
    return found


def give(nodes: Nodes, conv: str, giver: ClusterNode) -> None:
    """Have a slot wait for an owner, as after a death: its owner does not take it for its own."""
    giver.placement._releasing.add(slot_of(conv))


def take_back(conv: str, giver: ClusterNode) -> None:
    giver.placement._releasing.discard(slot_of(conv))


async def test_commands_go_to_the_owner_and_answers_come_back_in_order() -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        ann = await n1.join(1)
        ids = await several(ann, conv, 200)
        assert await replies_in_order(ann, ids) == list(range(1, 201))
        assert await seqs(ann, 200) == list(range(1, 201))
        assert not n1.node.registry.conversations


async def test_a_refusal_of_the_owner_is_the_clients_answer_in_its_place() -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        ann = await n1.join(1)
        first = await ann.send("send", conv=conv, key="k", kind="text", body="a")
        second = await ann.send("edit", conv=conv, ref=9, key="e", body="b")
        third = await ann.send("send", conv=conv, key="k", kind="text", body="other")
        assert (await ann.reply(first))["seq"] == 1
        assert (await ann.reply(second))["code"] == "not_found"
        assert (await ann.reply(third))["code"] == "conflict"


async def test_what_a_node_does_not_own_it_sends_back_untouched_and_in_order(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        ann = await n1.join(1)
        await send(ann, conv, "before")
        give(nodes, conv, n2)
        ids = await several(ann, conv, 5)
        await wait_all_tasks_blocked()
        assert len(nodes.network.words(w.Moved)) >= 1
        ids += await several(ann, conv, 5, first=5)
        await wait_all_tasks_blocked()
        take_back(conv, n2)
        assert await replies_in_order(ann, ids) == list(range(2, 12))
        await seqs(ann, 11)
        await nothing_more([ann])


async def test_what_was_on_its_way_does_not_overtake_what_was_sent_back(
    autojump_clock: MockClock,
) -> None:
    """The slot is the owner's again before it has heard all that was sent in one go."""
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        ann = await n1.join(1)
        await send(ann, conv, "before")
        give(nodes, conv, n2)
        ids = await several(ann, conv, 1)
        await wait_all_tasks_blocked(0.0)
        nodes.network.hold()
        n1.cluster.reroute()
        n1.placement.look_soon()
        ids += await several(ann, conv, 1, first=1)
        for first in range(2, 5):
            ids += await several(ann, conv, 1, first=first)
            await trio.sleep(0.01)
        held, nodes.network.held = nodes.network.held or [], None
        for number, (to, data) in enumerate(held):
            MemoryNetwork.deliver(nodes.network, to, data)
            await wait_all_tasks_blocked()
            if number == 0:
                take_back(conv, n2)
        assert await replies_in_order(ann, ids) == [2, 3, 4, 5, 6]


async def test_commands_in_doubt_are_asked_again_where_that_is_harmless(
    autojump_clock: MockClock,
) -> None:
    """The owner has done them, and its answers are lost with its life."""
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        ann = await n1.join(1)
        assert await send(ann, conv, "a") == [1]
        nodes.network.part(n2.inbox, n1.inbox, both=False)
        ids = await several(ann, conv, 3)
        await wait_all_tasks_blocked()
        assert n2.node.registry.conversations[conv].head == 4, "done, and not answered"
        n2.kill()
        nodes.network.cut.clear()
        assert await replies_in_order(ann, ids) == [2, 3, 4]
        assert await seqs(ann, 4) == [1, 2, 3, 4]
        await nothing_more([ann])


async def test_commands_in_doubt_are_asked_again_of_whoever_takes_over(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2", "n3") as nodes:
        n1, n2, n3 = nodes.running
        score = n1.placement._score
        convs = [n2.conv(user=user) for user in range(1, 10)]
        (conv, *_) = [
            conv for conv in convs if score("n3", slot_of(conv)) > score("n1", slot_of(conv))
        ]
        ann = await n1.join(int(conv.split("/")[1]))
        assert await send(ann, conv, "a") == [1]
        n2.kill()
        started = trio.current_time()
        ids = await several(ann, conv, 3)
        assert await replies_in_order(ann, ids) == [2, 3, 4]
        assert trio.current_time() - started < 2 * LEASE_S
        assert n3.owns(conv)


async def test_other_commands_in_doubt_are_refused_in_their_place(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        ann = await n1.join(1)
        await n2.join(2)
        group = (await ann.ok("group.create", title="x", members=[2]))["conv"]
        assert n1.owns(group), "who makes a group has it"
        bob = await n2.join(2)
        nodes.network.part(n1.inbox, n2.inbox, both=False)
        kick = await bob.send("group.leave", conv=group)
        await wait_all_tasks_blocked()
        n1.kill()
        nodes.network.cut.clear()
        reply = await bob.reply(kick)
        assert (reply["code"], reply["retry"]) == ("unavailable", True)
        assert "outcome is unknown" in reply["message"]


async def test_what_may_be_asked_again_is_what_has_a_key_or_changes_nothing_then() -> None:
    keyed = {command for command in REPEATABLE if "key" in command.__struct_fields__}
    assert {command.__struct_config__.tag for command in REPEATABLE - keyed} == {
        "history",
        "message",
        "read",
        "delivered",
        "typing",
        "group.get",
        "group.members",
        "conversation.set",
    }
    opening: Any = SimpleNamespace(refresh=None, ping=None)
    all_keyed = {c for c in open_table(opening) if "key" in c.__struct_fields__}
    assert keyed == all_keyed, "every command with a key may be asked again"


async def test_nobody_waits_for_ever(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        ann = await n1.join(1)
        await send(ann, conv, "a")
        give(nodes, conv, n2)
        started = trio.current_time()
        reply = await ann.ask("send", conv=conv, key="late", kind="text", body="b")
        assert (reply["code"], reply["retry"]) == ("unavailable", True)
        assert COMMAND_TIMEOUT_S <= trio.current_time() - started < COMMAND_TIMEOUT_S + 1
        assert not any(route.pending for route in n1.cluster.routes.values())
        assert not n1.cluster._tags


async def test_only_so_many_wait_on_one_route(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(module, "ROUTE_MAX_COMMANDS", 3)
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        ann = await n1.join(1)
        await send(ann, conv, "a")
        give(nodes, conv, n2)
        ids = await several(ann, conv, 4)
        assert (await ann.reply(ids[3]))["code"] == "unavailable"
        take_back(conv, n2)
        assert [(await ann.reply(id_))["seq"] for id_ in ids[:3]] == [2, 3, 4]


async def test_what_waits_when_the_slot_comes_home_is_done_here_in_order(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        ann = await n1.join(1)
        await send(ann, conv, "a")
        n2.kill()
        ids = await several(ann, conv, 20)
        assert await replies_in_order(ann, ids) == list(range(2, 22))
        assert n1.owns(conv)
        assert not n1.cluster.routes
        assert await send(ann, conv, "z") == [22]


async def test_what_is_not_this_nodes_any_more_goes_to_who_has_it(
    autojump_clock: MockClock,
) -> None:
    """A client of the node that gives a slot away, with commands in flight all the time."""
    async with nodes_of("n1") as nodes:
        (n1,) = nodes.running
        ann = await n1.join(1)
        conv = n1.conv()
        second = nodes.start("n2")
        count = 0
        while not second.owns(conv):
            if count > 2_000:
                conv, count = n1.conv(skip=len(conv) % 5), 0
            ids = await several(ann, conv, 10, first=count)
            seqs_ = await replies_in_order(ann, ids)
            assert seqs_ == list(range(count + 1, count + 11))
            count += 10
            await trio.sleep(0.02)
            if nodes._settled():
                break
        await nodes.settled()
        ids = await several(ann, conv, 10, first=count)
        assert await replies_in_order(ann, ids) == list(range(count + 1, count + 11))


@pytest.mark.parametrize("slot_owner", ["", "dead.1"])
async def test_without_an_owner_commands_wait(autojump_clock: MockClock, slot_owner: str) -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        slot = slot_of(conv)
        n1.placement.table[slot] = SlotRecord(slot, slot_owner, n1.placement.table[slot].epoch)
        ann = await n1.join(1)
        assert n1.placement.owner_inbox(slot) is None
        id_ = await ann.send("send", conv=conv, key="k", kind="text", body="a")
        await wait_all_tasks_blocked()
        assert not nodes.network.words(w.Ask)
        n1.placement.table[slot] = n2.placement.table[slot]
        n1.cluster.reroute()
        assert (await ann.reply(id_))["seq"] == 1


async def test_an_answer_is_made_in_the_clients_own_encoding() -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        conv = n2.conv()
        connection, _ = await n1.join_connection(1)
        connection.wire = WS_JSON
        remote = n1.node.registry.conversation(conv)
        asked = nodes.network.words(w.Ask)
        assert not asked
        command = Send(id=1, conv=conv, key="k", kind="text", body="a")
        connection.in_flight += 1
        remote.post(connection, command, lambda *_: None)
        n1.node.flusher.kick()
        await wait_all_tasks_blocked(0.003)
        (answer,) = nodes.network.words(w.Answer)
        assert isinstance(answer, w.Answer)
        assert answer.reply.startswith(b'{"t":"ok"')
