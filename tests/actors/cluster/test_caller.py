"""The stand-in for a client of another node: rules see no difference, answers find their way."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.cluster.caller import Caller
from actors.cluster.words import Answer, Ask, Moved
from actors.wires import WIRES, WS_JSON
from broker.wire.errors import Code, Refusal
from storage.records import Commit
from tests.actors.cluster.nodes import ClusterNode, Nodes, nodes_of, send


def caller(
    n: ClusterNode, other: ClusterNode, *, number: int = 7, tag: int = 1, wire: int = 0
) -> Caller:
    return Caller(n.node, n.peer(other), Ask(tag, 5, number, 3, wire, b"", 9))


def said(nodes: Nodes, n: ClusterNode, other: ClusterNode) -> list[object]:
    """What was said to the other since the last time."""
    nodes.network.carried.clear()
    n.peer(other).flush()
    return [word for e in nodes.network.carried if e.sender == n.inbox for word in e.words]


async def test_commands_of_one_connection_are_in_one_order() -> None:
    async with nodes_of("n1", "n2", "n3") as nodes:
        n1, n2, n3 = nodes.running
        first, second = caller(n1, n2, tag=1), caller(n1, n2, tag=2)
        assert first == second
        assert {first: 1}[second] == 1
        assert first != caller(n1, n2, number=8)
        assert first != caller(n1, n3), "the same number at another node is somebody else"
        assert first != object()


async def test_answers_go_back_in_the_encoding_of_the_client() -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        for wire in WIRES:
            one = caller(n1, n2, wire=wire.index)
            one.ok(4, seq=1)
            (answer,) = said(nodes, n1, n2)
            expected = wire.codec.encode({"t": "ok", "id": 4, "seq": 1})
            assert answer == Answer(1, expected)


async def test_refusals_and_many_answers_keep_their_order_and_are_counted() -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        one = caller(n1, n2, wire=WS_JSON.index)
        before = n1.node.counters.refused
        one.answer_all([{"n": 1}, {"n": 2}])
        one.refuse(5, Refusal(Code.FORBIDDEN, "no"))
        first, _, third = said(nodes, n1, n2)
        assert isinstance(first, Answer)
        assert isinstance(third, Answer)
        assert first.reply == b'{"n":1}'
        assert b"forbidden" in third.reply
        assert n1.node.counters.refused == before + 1


async def test_what_concerns_the_connection_itself_is_told_to_its_node() -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        one = caller(n1, n2, wire=WS_JSON.index)
        one.page(5, "g/1", 4, 6, entries=[])
        one.dispatch_again(None)
        page = b'{"t":"ok","id":5,"head":6,"entries":[]}'
        assert said(nodes, n1, n2) == [Answer(1, page, "g/1", 4, 6), Moved(1)]
        assert n1.peer(n2).bounced == {5: 9}, "and the rest of the attempt must not overtake it"


async def test_its_rate_is_counted_where_the_client_is() -> None:
    async with nodes_of("n1", "n2", sends_per_second=1.0, sends_burst=1) as nodes:
        n1, n2 = nodes.running
        one = caller(n1, n2)
        assert [one.session.wait_ms() for _ in range(3)] == [0, 0, 0]
        ann = await n2.join(1)
        conv = n1.conv()
        replies = [
            await ann.ask("send", conv=conv, key=f"k{n}", kind="text", body="x") for n in range(2)
        ]
        assert [reply.get("code") for reply in replies] == [None, "rate_limited"]


async def test_what_the_user_changes_is_locked_for_all_their_commands_alike() -> None:
    async with nodes_of("n1", "n2") as nodes:
        n1, n2 = nodes.running
        assert caller(n1, n2).session.changing is n1.node.registry.changing(3)


async def test_a_send_that_is_sent_on_is_counted_once(autojump_clock: MockClock) -> None:
    async with nodes_of("n1", "n2", sends_per_second=0.01, sends_burst=2) as nodes:
        n1, n2 = nodes.running
        conv = n1.conv()
        ann = await n1.join(1)
        nodes.store.loads.close()
        ids = [await ann.send("send", conv=conv, key=k, kind="text", body=k) for k in "ab"]
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(n1.placement.leave)
            await nodes.until(lambda: n2.owns(conv))
            nodes.store.loads.open()
        assert [(await ann.reply(id_))["t"] for id_ in ids] == ["ok", "ok"]
        third = await ann.ask("send", conv=conv, key="c", kind="text", body="c")
        assert third["code"] == "rate_limited"


async def test_a_full_mailbox_keeps_the_order_of_a_client_elsewhere(
    autojump_clock: MockClock,
) -> None:
    async with nodes_of("n1", "n2", mailbox_commands=1) as nodes:
        n1, n2 = nodes.running
        conv = n1.conv()
        bob = await n2.join(int(conv.rpartition("/")[2]))
        assert await send(bob, conv, "a") == [1]
        commit, gates = nodes.store.commit, list[trio.Event]()

        async def slow(work: Commit) -> None:
            gates.append(gate := trio.Event())
            await gate.wait()
            await commit(work)

        async def say(body: str) -> int:
            id_ = await bob.send("send", conv=conv, key=body, kind="text", body=body)
            await trio.sleep(0.05)
            return id_

        nodes.store.commit = slow  # type: ignore[method-assign]
        ids = [await say(body) for body in "bcd"]  # stored, in the mailbox, waiting for room
        gates[0].set()
        await nodes.until(lambda: len(gates) == 2)
        assert len(n1.node.registry.conversations[conv]._mailbox) == 1, "d gathers meanwhile"
        ids.append(await say("e"))  # while c is stored
        nodes.store.commit = commit  # type: ignore[method-assign]
        gates[1].set()
        assert [(await bob.reply(id_))["seq"] for id_ in ids] == [2, 3, 4, 5]
