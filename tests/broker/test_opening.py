"""What may be said first, and what comes of it: whole brokers, real sockets."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from storage.records import User
from tests.helpers.broker import Broker, running_broker

WIRES = ["tcp", "ws", "ws-json"]


@pytest.mark.parametrize("wire", WIRES)
async def test_hello_welcomes_with_all_that_a_client_needs(broker: Broker, wire: str) -> None:
    peer = await broker.join("alice", over=wire)
    alice = await broker.user("alice")
    assert peer.welcome["user"] == alice.id
    assert peer.welcome["heartbeat_ms"] == 30_000
    assert peer.welcome["limits"]["frame_bytes"] == 128 * 1024
    assert peer.welcome["session"]
    assert peer.welcome["node"]
    assert abs(peer.welcome["server_time"] - (await peer.ok("ping"))["server_time"]) < 10_000


async def test_a_plain_websocket_without_subprotocol_speaks_json(broker: Broker) -> None:
    peer = await broker.ws(None)
    await peer.hello(await broker.token("alice"))
    assert (await peer.ok("ping"))["server_time"]


async def test_register_login_and_go_on(broker: Broker) -> None:
    peer = await broker.tcp()
    registered = await peer.ok("register", name="Zoë", password="correct horse")
    opened = await peer.ok("login", name="ZOË", password="correct horse", device="phone")
    assert opened["user"] == registered["user"]
    assert opened["heartbeat_ms"] == 30_000
    other = await broker.tcp()
    assert (await other.hello(opened["token"]))["session"] == opened["session"]


@pytest.mark.parametrize(
    "name", ["", " alice", "alice ", "a\nb", "a\u200bb", "\u202ealice", "x" * 65]
)
async def test_names_that_nobody_could_read_are_refused(broker: Broker, name: str) -> None:
    peer = await broker.tcp()
    error = await peer.error("register", name=name, password="correct horse")
    assert (error["code"], error["field"]) == ("bad_request", "name")


async def test_names_are_unique_however_they_are_written(broker: Broker) -> None:
    peer = await broker.tcp()
    await peer.ok("register", name="ﬁona", password="correct horse")
    error = await peer.error("register", name="Fiona", password="correct horse")
    assert (error["code"], error["field"]) == ("conflict", "name")


@pytest.mark.parametrize(
    ("field", "value"),
    [("email", "nobody"), ("email", "a@b@c.de"), ("phone", "call me"), ("password", "short")],
)
async def test_what_is_no_address_or_password_is_named(
    broker: Broker, field: str, value: str
) -> None:
    peer = await broker.tcp()
    fields = {"name": "alice", "password": "correct horse", field: value}
    error = await peer.error("register", **fields)
    assert (error["code"], error["field"]) == ("bad_request", field)


async def test_a_wrong_password_and_an_unknown_name_look_the_same(broker: Broker) -> None:
    peer = await broker.tcp()
    await peer.ok("register", name="alice", password="correct horse")
    wrong = await peer.error("login", name="alice", password="battery staple")
    unknown = await peer.error("login", name="nobody", password="battery staple")
    assert wrong["code"] == unknown["code"] == "unauthenticated"
    assert wrong["message"] == unknown["message"]
    assert wrong["retry"] is False


async def test_a_command_before_hello_is_refused_and_hello_still_works(broker: Broker) -> None:
    peer = await broker.tcp()
    error = await peer.error("history", conv="d/1/2")
    assert error["code"] == "unauthenticated"
    await peer.hello(await broker.token("alice"))


async def test_a_second_hello_is_refused_and_the_connection_goes_on(broker: Broker) -> None:
    peer = await broker.tcp()
    token = await broker.token("alice")
    first = await peer.send("hello", token=token)
    second = await peer.send("hello", token=token)
    ping = await peer.send("ping")
    assert (await peer.reply(first))["t"] == "ok"
    assert (await peer.reply(second))["code"] == "bad_request"
    assert (await peer.reply(ping))["t"] == "ok"


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "ä" * 40])
async def test_what_is_no_token_is_unauthenticated(broker: Broker, token: str) -> None:
    error = await (await broker.tcp()).error("hello", token=token)
    assert (error["code"], error["field"]) == ("unauthenticated", "token")


async def test_the_token_of_somebody_who_is_gone_is_worth_nothing(broker: Broker) -> None:
    broker.users["ghost"] = User(id=99, name="ghost")
    error = await (await broker.tcp()).error("hello", token=await broker.token("ghost"))
    assert error["code"] == "unauthenticated"


async def test_a_disabled_account_is_told_so(broker: Broker) -> None:
    token = await broker.token("alice")
    await broker.store.update_user(broker.users["alice"].id, {"disabled": True})
    assert (await (await broker.tcp()).error("hello", token=token))["code"] == "forbidden"


async def test_a_new_password_ends_older_tokens(broker: Broker) -> None:
    token = await broker.token("alice")
    await broker.store.set_password(broker.users["alice"].id, "hash")
    error = await (await broker.tcp()).error("hello", token=token)
    assert error["code"] == "unauthenticated"


async def test_another_encoding_than_the_transports_is_refused(broker: Broker) -> None:
    peer = await broker.tcp()
    error = await peer.error("hello", token=await broker.token("alice"), encoding="json")
    assert (error["code"], error["field"]) == ("bad_request", "encoding")
    await peer.hello(await broker.token("alice"), encoding="msgpack")


async def test_refresh_gives_a_new_pair_and_uses_up_the_old(broker: Broker) -> None:
    peer = await broker.tcp()
    await peer.ok("register", name="alice", password="correct horse")
    opened = await peer.ok("login", name="alice", password="correct horse")
    renewed = await peer.ok("refresh", refresh=opened["refresh"])
    assert renewed["refresh"] != opened["refresh"]
    other = await broker.tcp()
    await other.ok("refresh", refresh=renewed["refresh"])
    await other.hello(renewed["token"])


async def test_hellos_that_come_together_are_all_welcomed(broker: Broker) -> None:
    tokens = [await broker.token(f"user{n}") for n in range(40)]
    peers = [await broker.tcp() for _ in tokens]
    async with trio.open_nursery() as nursery:
        for peer, token in zip(peers, tokens, strict=True):
            nursery.start_soon(peer.hello, token)
    assert sorted(peer.user for peer in peers) == list(range(1, 41))


async def test_too_many_logins_from_one_address_have_to_wait(tmp_path: Path) -> None:
    async with running_broker(tmp_path, rates__logins_per_min=2) as broker:
        peer = await broker.tcp()
        for _ in range(2):
            error = await peer.error("login", name="alice", password="battery staple")
            assert error["code"] == "unauthenticated"
        error = await peer.error("login", name="alice", password="battery staple")
        assert error["code"] == "rate_limited"
        assert error["retry"] is True
        assert 0 < error["after_ms"] <= 30_000
