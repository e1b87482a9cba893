"""A conversation through its turns: what fails is answered, reloaded and never lost or doubled."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors.connection import Connection
from actors.conversation import Conversation
from broker.wire import commands as c
from storage.errors import Unavailable
from storage.records import decode_entry
from tests.actors.world import World, world
from tests.helpers.peer import Peer

CONV = "d/1/2"


async def send(peer: Peer, key: str, body: str | None = None) -> int:
    return await peer.send("send", conv=CONV, key=key, kind="text", body=body or key)


async def bodies(world: World, conv: str = CONV) -> list[Any]:
    """The log in the store."""
    return [decode_entry(p).body for p in await world.store.read(conv, after=0, limit=10_000)]


async def test_a_rule_with_a_defect_answers_all_that_it_was_given() -> None:
    def broken(conv: Conversation, connection: Connection, command: Any) -> None:
        raise ZeroDivisionError

    async with world() as made:
        made.rule(c.Typing, broken)
        connection, peer = await made.join(1)
        _, other = await made.join(2)
        made.store.loads.close()
        before = await send(peer, "before")
        crashing = await peer.send("typing", conv=CONV)
        after = await send(peer, "after")
        beside = await send(other, "beside")
        await made.until(lambda: len(made.conversation(CONV)._mailbox) == 4)
        made.store.loads.open()
        with trio.fail_after(2):
            assert (await peer.reply(before))["code"] == "internal"
            assert (await peer.reply(crashing))["code"] == "internal"
            assert (await peer.reply(after))["seq"] == 1
            assert (await other.reply(beside))["seq"] == 2
        assert connection.in_flight == 0
        assert await bodies(made) == ["after", "beside"]


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_a_full_mailbox_holds_senders_back_and_loses_nothing(limit: int) -> None:
    async with world(users=6, mailbox_commands=limit) as made:
        peers = [(await made.join(1))[1] for _ in range(5)]
        await peers[0].ok("send", conv=CONV, key="first", kind="text", body="first")
        made.store.commits.close()
        ids = [await send(peer, f"{n}") for n, peer in enumerate(peers)]
        await made.until(lambda: bool(made.store.commits.waiting))
        made.store.commits.open()
        with trio.fail_after(2):
            seqs = [(await peer.reply(id))["seq"] for peer, id in zip(peers, ids, strict=True)]
        assert sorted(seqs) == [2, 3, 4, 5, 6]
        assert sorted(await bodies(made)) == ["0", "1", "2", "3", "4", "first"]


async def test_a_full_mailbox_survives_an_outage() -> None:
    async with world(mailbox_commands=1) as made:
        peers = [(await made.join(1))[1] for _ in range(4)]
        await peers[0].ok("send", conv=CONV, key="first", kind="text", body="first")
        made.store.commits.close()
        made.store.commits.faults.append(Unavailable("gone"))
        ids = [await send(peer, f"{n}") for n, peer in enumerate(peers)]
        await made.until(lambda: bool(made.store.commits.waiting))
        made.store.commits.open()
        with trio.fail_after(2):
            replies = [await peer.reply(id) for peer, id in zip(peers, ids, strict=True)]
        failed = [reply for reply in replies if reply["t"] == "error"]
        assert [(reply["code"], reply["retry"]) for reply in failed] == [("unavailable", True)]
        assert len(await bodies(made)) == 1 + len(replies) - len(failed)
        await wait_all_tasks_blocked()


async def test_a_reply_that_cannot_be_made_fails_alone() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    def rule(conv: Conversation, connection: Connection, command: Any) -> None:
        conv.answer_by(connection, command.id, fail)

    async with world() as made:
        made.rule(c.Typing, rule)
        connection, peer = await made.join(1)
        made.store.loads.close()
        before = await send(peer, "before")
        failing = await peer.send("typing", conv=CONV)
        after = await send(peer, "after")
        await made.until(lambda: connection.in_flight == 3)
        made.store.loads.open()
        with trio.fail_after(2):
            assert (await peer.reply(before))["seq"] == 1
            assert (await peer.reply(failing))["code"] == "internal"
            assert (await peer.reply(after))["seq"] == 2
        assert connection.in_flight == 0


@pytest.mark.parametrize("applied", [False, None])
async def test_a_commit_of_unknown_outcome_is_found_out_and_told(applied: bool | None) -> None:
    async with world() as made:
        _, ann = await made.join(1)
        _, bob = await made.join(2)
        await ann.ok("send", conv=CONV, key="a", kind="text", body="a")
        made.store.commits.faults.append(Unavailable("no answer", applied=applied))
        refused = await ann.error("send", conv=CONV, key="b", kind="text", body="b")
        assert (refused["code"], refused["retry"]) == ("unavailable", True)
        again = await ann.ok("send", conv=CONV, key="b", kind="text", body="b")
        assert again["seq"] == 2
        await ann.ok("send", conv=CONV, key="c", kind="text", body="c")
        for peer in (ann, bob):
            assert [(await peer.event("msg"))["body"] for _ in range(3)] == ["a", "b", "c"]
        assert await bodies(made) == ["a", "b", "c"]


async def test_more_than_is_held_cannot_be_told_again_and_is_pulled() -> None:
    async with world() as made:
        connection, bob = await made.join(2)
        _, ann = await made.join(1)
        await ann.ok("send", conv=CONV, key="a", kind="text", body="a")
        conv = made.conversation(CONV)
        made.store.commits.faults.append(Unavailable("no answer", applied=None))
        loaded = (await made.store.load([CONV], 0))[CONV]
        await ann.error("send", conv=CONV, key="b", kind="text", body="b")
        await made.until(lambda: conv.loaded)
        loaded.head.seq, loaded.tail = conv.head + 5, []
        conv.take_up(loaded)
        made.node.flusher.kick()  # as the loader does
        with trio.fail_after(2):
            behind = await bob.event("behind")
        assert behind["head"] == conv.head
        assert connection.behind == {CONV}


async def test_a_load_that_fails_is_answered_and_tried_again_by_the_next_command() -> None:
    async with world() as made:
        _, peer = await made.join(1)
        made.store.loads.faults.append(Unavailable("not now"))
        assert (await peer.error("history", conv=CONV))["code"] == "unavailable"
        assert (await peer.ok("history", conv=CONV))["head"] == 0


async def test_what_cannot_be_taken_up_is_a_defect_and_no_endless_loop() -> None:
    async with world() as made:
        _, peer = await made.join(1)
        await peer.ok("send", conv=CONV, key="a", kind="text", body="a")
        made.conversation(CONV).end()
        good = made.store._conversations[CONV].payloads[0]
        made.store._conversations[CONV].payloads[0] = b"\xc1"
        with trio.fail_after(2):
            assert (await peer.error("history", conv=CONV))["code"] == "internal"
            assert (await peer.error("history", conv=CONV))["code"] == "internal"
        assert made.node.counters.crashes == 2
        made.store._conversations[CONV].payloads[0] = good
        assert len((await peer.ok("history", conv=CONV))["entries"]) == 1


async def test_what_is_found_out_reaches_a_crowd_without_another_turn() -> None:
    async with world() as made:
        crowd = [(await made.join(user))[1] for user in (1, 2) * 3]
        await crowd[0].ok("send", conv=CONV, key="a", kind="text", body="a")
        made.store.commits.faults.append(Unavailable("no answer", applied=None))
        await crowd[0].error("send", conv=CONV, key="b", kind="text", body="b")
        with trio.fail_after(2):
            for peer in crowd:
                assert [(await peer.event("msg"))["body"] for _ in range(2)] == ["a", "b"]


async def test_many_pages_at_once_are_not_made_in_one_turn() -> None:
    async with world() as made:
        connection, peer = await made.join(1)
        await peer.ok("send", conv=CONV, key="a", kind="text", body="a")
        conv = made.conversation(CONV)
        made.store.loads.close()
        conv.end()
        pages = [await peer.send("history", conv=CONV, after=0) for _ in range(40)]
        last = await send(peer, "b")
        conv = made.conversation(CONV)
        await made.until(lambda: len(conv._mailbox) == 41)
        made.store.loads.open()
        await made.until(lambda: conv.statistics().waiting == 1)
        assert connection.in_flight > 20
        with trio.fail_after(2):
            for id in pages:
                assert len((await peer.reply(id))["entries"]) == 1
            assert (await peer.reply(last))["seq"] == 2
        assert connection.in_flight == 0
