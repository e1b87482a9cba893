"""Starting, stopping in order, and coming down loudly: whole brokers."""

from __future__ import annotations

import stat
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from actors.connection import Connection
from broker.app import node_of, run, serve
from broker.running import Running
from storage.errors import StoreError
from storage.memory import MemoryStore
from storage.records import Commit
from storage.sqlite import open_sqlite
from tests.helpers.broker import OPERATOR, SECRET, Broker, config_with, running_broker
from tests.helpers.certificates import certificate, locked
from tests.helpers.peer import open_tcp


class SlowStore(MemoryStore):
    """Commits only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = trio.Event()
        self.let = trio.Event()

    async def commit(self, commit: Commit) -> None:
        self.asked.set()
        await self.let.wait()
        await super().commit(commit)


# Draining


@pytest.mark.parametrize("wire", ["tcp", "ws", "ws-json"])
async def test_everybody_is_told_when_to_come_back(broker: Broker, wire: str) -> None:
    peers = [await broker.join(f"user{n}", over=wire) for n in range(10)]
    broker.running.stop()
    slots = []
    for peer in peers:
        bye = await peer.event("bye")
        assert (bye["code"], bye["reconnect"]) == ("draining", True)
        slots.append(bye["after_ms"])
        assert (await peer.ended()).status == (None if wire == "tcp" else 4001)
        await peer.aclose()
    assert sorted(slots) == list(range(0, 5_000, 500)), "spread evenly over the drain time"


async def test_what_is_under_way_is_answered_before_the_goodbye(tmp_path: Path) -> None:
    store = SlowStore()
    async with running_broker(tmp_path, store=store) as broker:
        bob = await broker.user("bob")
        alice = await broker.join("alice")
        sent = await alice.send("send", to={"user": bob.id}, key="k", kind="text", body="last")
        await store.asked.wait()
        broker.running.stop()
        store.let.set()
        await alice.ended()
        assert (await alice.reply(sent))["seq"] == 1
        assert [event["t"] for event in alice.events] == ["msg", "bye"]


async def test_what_cannot_be_answered_in_time_is_not_waited_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_broker(tmp_path, store=SlowStore()) as broker:
        bob = await broker.user("bob")
        alice = await broker.join("alice")
        sent = await alice.send("send", to={"user": bob.id}, key="k", kind="text", body="last")
        broker.running.stop()
        await alice.ended()
        assert [event["t"] for event in alice.events] == ["bye"]
        assert sent not in alice._replies
        await alice.aclose()


async def test_a_draining_broker_takes_nobody_new(broker: Broker) -> None:
    alice = await broker.join("alice")
    broker.running.stop()
    await alice.event("bye")
    for address in (broker.running.tcp, broker.running.http):
        with pytest.raises(OSError, match=r"refused|failed"):
            await trio.open_tcp_stream(address.host, address.port)


async def test_who_does_not_leave_is_not_waited_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    config = config_with(tmp_path, {"connections.drain_ms": 1_000})
    async with trio.open_nursery() as nursery:
        node = node_of(config, MemoryStore())
        running: Running = await nursery.start(partial(serve, config, node, SECRET, OPERATOR))
        stubborn = await open_tcp(running.tcp.host, running.tcp.port)
        await stubborn.ok("ping")
        half_a_request = await trio.open_tcp_stream(running.http.host, running.http.port)
        await half_a_request.send_all(b"POST /api/login HTTP/1.1\r\nContent-Length: 9\r\n")
        running.stop()
    assert trio.current_time() < 1.5
    await stubborn.aclose()


async def test_stopping_twice_is_stopping_once(broker: Broker) -> None:
    broker.running.stop()
    broker.running.stop()


async def test_a_request_under_way_is_answered(broker: Broker) -> None:
    http = await trio.open_tcp_stream(broker.running.http.host, broker.running.http.port)
    await http.send_all(b"POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{")
    await trio.testing.wait_all_tasks_blocked()
    broker.running.stop()
    while not broker.node.draining:
        await trio.lowlevel.checkpoint()
    await http.send_all(b"}")
    answer = b"".join([part async for part in http])
    assert answer.startswith(b"HTTP/1.1 400 ")


# Coming down


async def test_a_crash_of_a_task_ends_the_broker(tmp_path: Path) -> None:
    class Defect(Exception):
        pass

    async def crash() -> None:
        raise Defect

    config = config_with(tmp_path, {})
    node = node_of(config, MemoryStore())

    async def lifetime() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve, config, node, SECRET, OPERATOR))
            node.tasks.start_soon(crash)

    with pytest.raises(ExceptionGroup) as caught:
        await lifetime()
    assert caught.group_contains(Defect)


async def test_a_crash_of_one_connection_harms_no_other(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = await broker.join("alice"), await broker.join("bob")

    def broken(connection: Connection, frames: list[bytes]) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Connection, "_dispatch", broken)
    await bob.send("ping")
    await bob.ended()
    monkeypatch.undo()
    await alice.ok("ping")
    assert broker.node.counters.crashes == 1


async def test_cancelling_ends_everything_at_once(tmp_path: Path) -> None:
    async with running_broker(tmp_path, store=SlowStore()) as broker:
        bob = await broker.user("bob")
        alice = await broker.join("alice", over="ws")
        await alice.send("send", to={"user": bob.id}, key="k", kind="text", body="lost")
        web = await trio.open_tcp_stream(broker.running.http.host, broker.running.http.port)
        await web.send_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        await web.receive_some()
    assert not broker.node.connections


# With its data


async def started(nursery: trio.Nursery, data: Path) -> Running:
    running: Running = await nursery.start(run, config_with(data, {}))
    return running


async def test_data_survives_a_restart_and_is_for_its_owner_only(tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    async with trio.open_nursery() as nursery:
        running = await started(nursery, data)
        peer = await open_tcp(running.tcp.host, running.tcp.port)
        alice = await peer.ok("register", name="alice", password="correct horse")
        token = (await peer.ok("login", name="alice", password="correct horse"))["token"]
        running.stop()
        await peer.ended()
        await peer.aclose()
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    for name in ("secret", "operator", "parley.sqlite"):
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o600
    async with trio.open_nursery() as nursery:
        running = await started(nursery, data)
        peer = await open_tcp(running.tcp.host, running.tcp.port)
        assert (await peer.hello(token))["user"] == alice["user"]
        await peer.aclose()
        running.stop()


async def test_when_users_left_is_stored_at_the_end(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        running = await started(nursery, tmp_path)
        peer = await open_tcp(running.tcp.host, running.tcp.port)
        await peer.ok("register", name="alice", password="correct horse")
        now = (await peer.ok("login", name="alice", password="correct horse"))["server_time"]
        running.stop()
        await peer.ended()
        await peer.aclose()
    async with open_sqlite(tmp_path / "parley.sqlite") as store:
        (alice,) = (await store.users_by_name(["alice"])).values()
    assert now <= alice.last_seen < now + 60_000


async def test_a_directory_has_one_broker(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        running = await started(nursery, tmp_path)
        with pytest.raises(StoreError, match=str(tmp_path)):
            await run(config_with(tmp_path, {}))
        running.stop()


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    data = tmp_path / "file" / "data"
    data.parent.touch()
    with pytest.raises(OSError, match=str(tmp_path)):
        await run(config_with(data, {}))


async def test_a_certificate_that_is_none_is_named(tmp_path: Path) -> None:
    nothing = tmp_path / "cert.pem"
    nothing.write_text("nothing")
    config = config_with(tmp_path / "data", {"tls.cert": nothing, "tls.key": nothing})
    with pytest.raises(OSError, match=str(nothing)):
        await run(config)


async def test_a_key_with_a_passphrase_is_refused_and_not_asked_for(tmp_path: Path) -> None:
    cert, key, _ = certificate(tmp_path)
    config = config_with(tmp_path / "data", {"tls.cert": cert, "tls.key": locked(key)})
    with pytest.raises(OSError, match=f"encrypted.*{cert}"):
        await run(config)
