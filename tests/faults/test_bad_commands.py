"""Wrong types in every field of every command: one reply each, by its id, and nothing breaks."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import msgpack
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.wire.commands import AnyCommand
from broker.wire.errors import Code
from broker.wire.limits import MAX_ID
from tests.faults.raw import send_raw
from tests.faults.schema import COMMANDS, commands, json_junk, msgpack_junk
from tests.helpers.broker import Broker, running_broker
from tests.helpers.peer import Map, Peer

WIRES = ["tcp", "ws", "ws-json"]
UNUSABLE_IDS = [-1, MAX_ID + 1, 2**64 - 1, 1.5, "1", None, True, [1], {}]
UNLIMITED = {"rates__logins_per_min": 0, "rates__registers_per_min": 0}

ids = st.sampled_from(UNUSABLE_IDS)


def test_every_command_is_generated() -> None:
    assert len(COMMANDS) == len(get_args(AnyCommand))


def encoded(command: Map, wire: str) -> bytes:
    if wire == "ws-json":
        return json.dumps(command).encode()
    packed: bytes = msgpack.packb(command)
    return packed


async def replies(peer: Peer, count: int) -> list[Map]:
    """So many answers, with or without an id, and then the one of a ping: there are no more."""
    found: list[Map] = []
    while len(found) < count:
        message = await peer.carrier.receive()
        assert message["t"] != "bye", message
        if "id" in message or message["t"] == "error":
            found.append(message)
    await peer.carrier.send({"t": "ping", "id": MAX_ID})
    while "id" not in (message := await peer.carrier.receive()):
        assert message["t"] not in ("error", "bye"), message
    assert (message["t"], message["id"]) == ("ok", MAX_ID), "one reply too many"
    return found


def check(sent: list[Map], answers: list[Map]) -> None:
    """One answer for each: those with a usable id by it, the others without."""
    usable = [c["id"] for c in sent if type(c["id"]) is int and 0 <= c["id"] <= MAX_ID]
    assert Counter(a["id"] for a in answers if "id" in a) == Counter(usable)
    for answer in answers:
        if answer["t"] == "error":
            assert answer["code"] in set(Code) - {Code.INTERNAL, Code.BAD_FRAME}, answer
            assert answer["message"]
        else:
            assert answer["t"] == "ok"


def scripts(wire: str) -> st.SearchStrategy[list[tuple[Map, Any]]]:
    """Commands, each with the unusable id that it has instead of its own, if any."""
    junk = json_junk if wire == "ws-json" else msgpack_junk
    return st.lists(
        st.tuples(commands(junk), st.none() | st.none() | ids.map(lambda each: (each,))),
        min_size=1,
        max_size=30,
    )


@pytest.mark.parametrize("opened", [True, False], ids=["open", "opening"])
@pytest.mark.parametrize("wire", WIRES)
def test_any_fields_get_one_answer_each_and_break_nothing(wire: str, opened: bool) -> None:
    @given(scripts(wire))
    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    def tell(script: list[tuple[Map, Any]]) -> None:
        sent = [
            {**command, "id": bad[0] if bad else number}
            for number, (command, bad) in enumerate(script, 1)
        ]
        trio.run(run, sent)

    async def run(sent: list[Map]) -> None:
        with tempfile.TemporaryDirectory() as data:
            async with running_broker(Path(data), **UNLIMITED) as broker:
                peer, other = await prepare(broker)
                with trio.fail_after(10):
                    for command in sent:
                        await send_raw(peer, encoded(command, wire))
                    check(sent, await replies(peer, len(sent)))
                    await other.ok("ping")

    async def prepare(broker: Broker) -> tuple[Peer, Peer]:
        """Users 1 to 3 and the group 1 with an entry; the first is who speaks."""
        for name in ("ann", "bob", "cid"):
            await broker.user(name)
        other = await broker.join("bob")
        peer = await broker.join("ann", over=wire)
        await peer.ok("group.create", title="Tea", members=[2])
        await peer.ok("send", conv="g/1", key="a", kind="text", body="hi")
        if not opened:
            await peer.aclose()
            subprotocol = "parley.json.v1" if wire == "ws-json" else "parley.msgpack.v1"
            peer = await (broker.tcp() if wire == "tcp" else broker.ws(subprotocol))
        return peer, other

    tell()


@pytest.mark.parametrize("wire", WIRES)
async def test_commands_that_nobody_knows_are_named(broker: Broker, wire: str) -> None:
    peer = await broker.join("ann", over=wire)
    error = await peer.error("send.later")
    assert (error["code"], error["field"]) == ("unknown_command", "t")
    assert "send.later" in error["message"]
    long = await peer.error("x" * 10_000)
    assert long["code"] == "unknown_command"
    assert len(long["message"]) < 200


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("field", ["to.user", "reply_to", "mentions.0"])
async def test_ids_beyond_what_javascript_can_hold_are_named(
    broker: Broker, wire: str, field: str
) -> None:
    peer = await broker.join("ann", over=wire)
    bob = await broker.user("bob")
    fields: Map = {"to": {"user": bob.id}, "reply_to": None, "mentions": None}
    fields[field.split(".")[0]] = {
        "to.user": {"user": MAX_ID + 1},
        "reply_to": MAX_ID + 1,
        "mentions.0": [MAX_ID + 1],
    }[field]
    error = await peer.error("send", key="a", kind="text", body="hi", **fields)
    assert (error["code"], error["field"]) == ("bad_request", field)


async def test_a_key_that_was_used_for_something_else_is_a_conflict(broker: Broker) -> None:
    peer, bob = await broker.join("ann"), await broker.join("bob")
    conv = f"d/{peer.user}/{bob.user}"
    first = await peer.ok("send", conv=conv, key="k", kind="text", body="tea?")
    assert (await peer.ok("send", conv=conv, key="k", kind="text", body="tea?"))["seq"] == 1
    for other in (
        {"kind": "text", "body": "coffee?"},
        {"kind": "emoji", "body": "tea?"},
        {"kind": "text", "body": "tea?", "reply_to": 1},
        {"kind": "text", "body": "tea?", "mentions": [bob.user]},
        {"kind": "custom", "body": {"text": "tea?"}},
    ):
        error = await peer.error("send", conv=conv, key="k", **other)
        assert (error["code"], error["field"], error["retry"]) == ("conflict", "key", False)
    error = await peer.error("react", conv=conv, ref=1, key="k", emoji="🍵")
    assert (error["code"], error["field"]) == ("conflict", "key")
    theirs = await bob.ok("send", conv=conv, key="k", kind="text", body="another's key")
    assert (first["seq"], theirs["seq"]) == (1, 2)
    assert (await peer.ok("history", conv=conv))["head"] == 2
