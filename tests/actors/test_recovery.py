"""What a conversation must not get wrong when it cannot know at once what the store holds."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from actors.connection import Connection
from actors.conversation import Conversation
from actors.sweeper import idle
from broker.wire import commands as c
from storage.errors import Unavailable
from storage.records import Commit, Member
from tests.actors.world import World, world
from tests.conformance.making import append, group

GROUP = "g/1"
CONV = "d/1/2"
EDITS = 100
BEYOND_WHAT_IS_HELD = 600


async def make_group(made: World) -> None:
    """The group 1 with the users 1 and 2, and one entry."""
    members = [Member(GROUP, 1, "owner", 1), Member(GROUP, 2, "member", 1)]
    await made.store.commit(
        Commit(appends=[append(GROUP, 1, 1)], groups=[group(1)], members=members)
    )


def expel_two(conv: Conversation, connection: Connection, command: Any) -> None:
    conv.append(1, "system", {"event": "left", "users": [2], "by": 1})
    conv.expel(2)
    conv.answer(connection, command.id, {"t": "ok", "id": command.id})


@pytest.mark.parametrize("applied", [None, False])
async def test_an_expulsion_of_unknown_outcome_is_what_the_store_says(applied: bool | None) -> None:
    async with world() as made:
        await make_group(made)
        made.rule(c.Typing, expel_two)
        _, ann = await made.join(1)
        _, bob = await made.join(2)
        await ann.ok("history", conv=GROUP)
        made.store.commits.faults.append(Unavailable("no answer", applied=applied))
        with trio.fail_after(2):
            assert (await ann.error("typing", conv=GROUP))["code"] == "unavailable"
            await ann.ok("send", conv=GROUP, key="a", kind="text", body="a secret")
            await bob.ok("ping")
        told = [event["body"] for event in bob.events if event["t"] == "msg"]
        assert told == ([] if applied is None else ["a secret"])
        assert "behind" in [event["t"] for event in bob.events], "the answer to a pull says it"
        later = (await made.join(2))[1]
        with trio.fail_after(2):
            await ann.ok("send", conv=GROUP, key="b", kind="text", body="another")
            await later.ok("ping")
        assert bool(later.events) == (applied is False)


async def test_a_much_edited_old_message_can_be_recalled() -> None:
    async with world() as made:
        _, ann = await made.join(1)
        send = {"conv": CONV, "kind": "text"}
        await ann.ok("send", key="old", body="old", **send)
        ids = [
            await ann.send("edit", conv=CONV, ref=1, key=f"e{n}", body=f"{n}") for n in range(EDITS)
        ]
        ids += [
            await ann.send("send", key=f"{n}", body=f"{n}", **send)
            for n in range(BEYOND_WHAT_IS_HELD)
        ]
        for id in ids:
            assert (await ann.reply(id))["t"] == "ok"
        with trio.fail_after(5):
            await ann.ok("recall", conv=CONV, ref=1, key="recall")
            page = await ann.ok("history", conv=CONV, after=0, limit=EDITS + 1)
        assert all(entry["recalled"] for entry in page["entries"])
        assert not any("body" in entry for entry in page["entries"])


async def test_who_may_have_missed_something_is_not_forgotten_for_being_idle() -> None:
    async with world() as made:
        _, ann = await made.join(1)
        _, bob = await made.join(2)
        await ann.ok("send", conv=CONV, key="a", kind="text", body="a")
        made.store.commits.faults.append(Unavailable("no answer", applied=None))
        made.store.loads.faults.append(Unavailable("still not"))
        await ann.error("send", conv=CONV, key="b", kind="text", body="b")
        conv = made.conversation(CONV)
        await made.until(lambda: not made.store.loads.faults)
        await trio.testing.wait_all_tasks_blocked()
        assert not conv.loaded
        assert not idle(conv, made.node.now() + 1_000)
        await bob.ok("send", conv=CONV, key="c", kind="text", body="c")
        with trio.fail_after(2):
            for peer in (ann, bob):
                assert [(await peer.event("msg"))["body"] for _ in range(3)] == ["a", "b", "c"]
        assert idle(conv, made.node.now() + 1_000)


async def test_what_was_stored_is_told_though_nobody_asks_again() -> None:
    """The outcome of a commit is unknown, and so is the state after it, until the store is back."""
    async with world() as made:
        _, ann = await made.join(1)
        _, bob = await made.join(2)
        await ann.ok("send", conv=CONV, key="a", kind="text", body="a")
        made.store.commits.faults.append(Unavailable("no answer", applied=None))
        made.store.loads.faults += [Unavailable("still not"), Unavailable("nor now")]
        await ann.error("send", conv=CONV, key="b", kind="text", body="b")
        conv = made.conversation(CONV)
        while not conv.loaded:
            await trio.testing.wait_all_tasks_blocked()
            made.node.turn.load_again()
        assert not made.store.loads.faults
        with trio.fail_after(2):
            for peer in (ann, bob):
                assert [(await peer.event("msg"))["body"] for _ in range(2)] == ["a", "b"]


async def test_an_idle_conversation_comes_back_as_it_was() -> None:
    async with world() as made:
        _, ann = await made.join(1)
        _, bob = await made.join(2)
        first = await ann.ok("send", conv=CONV, key="a", kind="text", body="a")
        made.conversation(CONV).end()
        assert CONV not in made.node.registry.conversations
        with trio.fail_after(2):
            again = await ann.ok("send", conv=CONV, key="a", kind="text", body="a")
            assert again["seq"] == first["seq"]
            assert (await ann.ok("send", conv=CONV, key="b", kind="text", body="b"))["seq"] == 2
            assert [(await bob.event("msg"))["seq"] for _ in range(2)] == [1, 2]


def admit_sender(conv: Conversation, connection: Connection, command: Any) -> None:
    conv.append(3, "system", {"event": "joined", "users": [3], "by": 3})
    conv.admit(Member(GROUP, 3, "member", conv.head + 1))
    conv.answer(connection, command.id, {"t": "ok", "id": command.id})


async def test_who_came_with_a_commit_in_doubt_is_told_though_nobody_else_was_there() -> None:
    """Seed 501092 of the simulated cluster: the actor had nobody to tell, and was forgotten before
    it knew; the next one held what it found for told."""
    async with world() as made:
        await make_group(made)
        made.rule(c.Typing, admit_sender)
        _, cat = await made.join(3)
        await cat.error("history", conv=GROUP)  # it is taken up
        made.store.commits.faults.append(Unavailable("no answer", applied=None))
        made.store.loads.faults.append(Unavailable("still not"))
        with trio.fail_after(2):
            assert (await cat.error("typing", conv=GROUP))["code"] == "unavailable"
        conv = made.conversation(GROUP)
        await made.until(lambda: not made.store.loads.faults)
        await trio.testing.wait_all_tasks_blocked()
        assert not conv.loaded
        assert not idle(conv, made.node.now() + 1_000)
        _, ann = await made.join(1)
        with trio.fail_after(2):
            await ann.ok("send", conv=GROUP, key="a", kind="text", body="a")
            await cat.ok("ping")
        assert [event["t"] for event in cat.events] == ["behind"]
        assert idle(conv, made.node.now() + 1_000)


async def test_what_cannot_be_taken_up_is_not_loaded_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A defect, or what is stored is broken: only who asks again is answered again."""
    async with world() as made:
        await make_group(made)
        _, ann = await made.join(1)

        def broken(self: Conversation, loaded: object) -> None:
            raise KeyError("a defect")

        monkeypatch.setattr(Conversation, "_remember", broken)
        with trio.fail_after(2):
            assert (await ann.error("history", conv=GROUP))["code"] == "internal"
            assert GROUP not in made.node.registry.conversations
            made.node.turn.load_again()
            await trio.testing.wait_all_tasks_blocked()
            assert made.node.counters.crashes == 1
            monkeypatch.undo()
            await ann.ok("history", conv=GROUP)
