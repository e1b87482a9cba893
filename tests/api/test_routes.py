"""The HTTP routes of a whole broker, asked by httpx."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from api.answers import BODY_TIMEOUT_S
from storage.errors import Unavailable
from storage.memory import MemoryStore
from tests.helpers.broker import OPERATOR, Broker, running_broker

OPERATORS = {"Authorization": f"Bearer {OPERATOR.decode()}"}
ALICE = {"name": "alice", "password": "correct horse"}


@pytest.fixture
async def http(broker: Broker) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(broker) as client:
        yield client


def client_of(broker: Broker) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{broker.running.http}", trust_env=False)


async def test_an_account_made_by_http_opens_a_socket(
    broker: Broker, http: httpx.AsyncClient
) -> None:
    made = await http.post("/api/register", json=ALICE)
    assert made.status_code == 201
    session = (await http.post("/api/login", json=ALICE)).json()
    assert session["user"] == made.json()["user"]
    peer = await broker.tcp()
    assert (await peer.hello(session["token"]))["session"] == session["session"]


async def test_refreshing_by_http_ends_what_was_refreshed(http: httpx.AsyncClient) -> None:
    await http.post("/api/register", json=ALICE)
    old = (await http.post("/api/login", json=ALICE)).json()["refresh"]
    new = await http.post("/api/refresh", json={"refresh": old})
    assert new.status_code == 200
    again = await http.post("/api/refresh", json={"refresh": old})
    assert (again.status_code, again.json()["code"]) == (401, "unauthenticated")
    family = await http.post("/api/refresh", json={"refresh": new.json()["refresh"]})
    assert family.status_code == 401


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({"name": "alice"}, 400, "bad_request", "password"),
        ({"name": 5, "password": "correct horse"}, 400, "bad_request", "name"),
        ({"name": " x", "password": "correct horse"}, 400, "bad_request", "name"),
        ({"name": "x", "password": "short"}, 400, "bad_request", "password"),
        ([], 400, "bad_request", None),
    ],
)
async def test_bad_fields_are_named(
    http: httpx.AsyncClient, body: Any, status: int, code: str, field: str | None
) -> None:
    answer = await http.post("/api/register", json=body)
    assert answer.status_code == status
    assert answer.json()["code"] == code
    assert answer.json().get("field") == field


async def test_what_is_no_json_is_refused_with_the_place(http: httpx.AsyncClient) -> None:
    answer = await http.post("/api/login", content=b'{"name": "alice", }')
    assert answer.status_code == 400
    assert "byte" in answer.json()["message"]


async def test_a_name_taken_is_a_conflict(http: httpx.AsyncClient) -> None:
    await http.post("/api/register", json=ALICE)
    answer = await http.post("/api/register", json=ALICE)
    assert (answer.status_code, answer.json()["field"]) == (409, "name")


async def test_a_wrong_password_is_unauthenticated(http: httpx.AsyncClient) -> None:
    answer = await http.post("/api/login", json=ALICE)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


async def test_who_logs_in_too_often_is_told_when_to_try_again(tmp_path: Path) -> None:
    async with (
        running_broker(tmp_path, rates__logins_per_min=1) as broker,
        client_of(broker) as http,
    ):
        await http.post("/api/login", json=ALICE)
        answer = await http.post("/api/login", json=ALICE)
    assert answer.status_code == 429
    assert 0 < answer.json()["after_ms"] <= 60_000
    assert 1 <= int(answer.headers["retry-after"]) <= 60


async def test_unknown_paths_and_wrong_methods_answer_in_the_same_shape(
    http: httpx.AsyncClient,
) -> None:
    unknown = await http.get("/api/nothing")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    wrong = await http.get("/api/login")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "bad_request")
    assert "POST" in wrong.headers["allow"]


async def test_a_body_that_is_too_long_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.post("/api/login", content=b" " * (64 * 1024 + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_alive_and_ready(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    assert (await http.get("/readyz")).json() == {"status": "ready"}


class BrokenStore(MemoryStore):
    async def ping(self) -> None:
        raise Unavailable("the disk is full")


async def test_not_ready_without_a_store_but_alive(tmp_path: Path) -> None:
    async with running_broker(tmp_path, store=BrokenStore()) as broker, client_of(broker) as http:
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert (await http.get("/healthz")).status_code == 200


async def test_not_ready_while_draining(broker: Broker, http: httpx.AsyncClient) -> None:
    broker.node.draining = True
    assert (await http.get("/readyz")).status_code == 503


async def test_metrics_count_what_happens(broker: Broker, http: httpx.AsyncClient) -> None:
    alice = await broker.join("alice", over="ws")
    bob = await broker.user("bob")
    await alice.ok("send", to={"user": bob.id}, key="k", kind="text", body="hi")
    lines = (await http.get("/metrics")).text.splitlines()
    assert "parley_appended_total 1.0" in lines
    assert 'parley_connections{wire="ws-msgpack"} 1.0' in lines
    assert "parley_users_online 1.0" in lines
    assert any(line.startswith("process_cpu_seconds_total ") for line in lines)


@pytest.mark.parametrize(
    "path", ["/api/monitor/system", "/api/monitor/cluster", "/api/monitor/connections"]
)
@pytest.mark.parametrize("token", [None, "", "x", "Bearer", "Bearer ünsafe"])
async def test_only_the_operator_looks_inside(
    http: httpx.AsyncClient, path: str, token: str | None
) -> None:
    headers = {} if token is None else {"Authorization": token.encode()}
    answer = await http.get(path, headers=headers)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert OPERATOR.decode() not in answer.text


async def test_the_operator_sees_the_system(broker: Broker, http: httpx.AsyncClient) -> None:
    alice = await broker.join("alice")
    seen = (await http.get("/api/monitor/system", headers=OPERATORS)).json()
    assert seen["connections"]["by_wire"]["tcp-msgpack"] == 1
    assert seen["users_online"] == 1
    assert seen["counters"]["logins"] == 1
    assert seen["memory_bytes"] > 1_000_000
    await alice.aclose()


async def test_a_broker_alone_is_in_no_cluster(http: httpx.AsyncClient) -> None:
    seen = await http.get("/api/monitor/cluster", headers=OPERATORS)
    assert (seen.status_code, seen.json()) == (200, {"clustered": False})


async def test_the_operator_pages_through_connections(
    broker: Broker, http: httpx.AsyncClient
) -> None:
    peers = [await broker.join(name) for name in ("alice", "bob", "carol")]
    users: list[int] = []
    after = -1
    while after is not None:
        query = {"after": after, "limit": 2}
        page = (await http.get("/api/monitor/connections", headers=OPERATORS, params=query)).json()
        assert len(page["connections"]) <= 2
        users += [c["user"] for c in page["connections"] if c["wire"] == "tcp-msgpack"]
        after = page.get("next")
    assert sorted(users) == sorted(peer.user for peer in peers)
    bad = await http.get("/api/monitor/connections", headers=OPERATORS, params={"limit": 0})
    assert (bad.status_code, bad.json()["field"]) == (400, "limit")


async def test_the_front_page_and_the_description_tell_of_every_route(
    http: httpx.AsyncClient,
) -> None:
    front = (await http.get("/")).json()
    assert front["websocket"] == "/ws"
    described = (await http.get(front["api"])).json()
    for path, methods in described["paths"].items():
        for method in methods:
            answer = await http.request(method.upper(), path)
            assert answer.status_code not in (404, 405, 500), path
    schemas = described["components"]["schemas"]
    assert schemas["RegisterBody"]["required"] == ["name", "password"]


async def test_the_websocket_path_says_that_it_wants_an_upgrade(http: httpx.AsyncClient) -> None:
    answer = await http.get("/ws")
    assert answer.status_code == 426
    assert answer.headers["upgrade"] == "websocket"


async def test_a_body_that_trickles_in_is_given_up(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_broker(tmp_path) as broker:
        stream = await trio.open_tcp_stream(broker.running.http.host, broker.running.http.port)
        await stream.send_all(b"POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        answer = b"".join([part async for part in stream])
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert BODY_TIMEOUT_S <= trio.current_time() < BODY_TIMEOUT_S + 5


async def test_a_late_upgrade_is_told_to_come_on_a_new_connection(broker: Broker) -> None:
    async with await trio.open_tcp_stream(
        broker.running.http.host, broker.running.http.port
    ) as stream:
        await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        first = await stream.receive_some()
        while b'{"status":"ok"}' not in first:
            first += await stream.receive_some()
        await stream.send_all(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        answer = b"".join([part async for part in stream])
    assert answer.startswith(b"HTTP/1.1 409 ")
    assert b"new one" in answer
