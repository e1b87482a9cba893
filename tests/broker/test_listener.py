"""Accepting: what a port does under every kind of newcomer, and when there is room for none."""

from __future__ import annotations

import contextlib
import errno
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from actors.wires import TCP_MSGPACK
from broker.listener import EXHAUSTED, FAILED_IN_THE_BACKLOG, SURPLUS_MIN, Listener, bind
from tests.helpers.broker import Broker, running_broker
from tests.helpers.certificates import certificate
from tests.helpers.peer import Peer, TcpCarrier, framed, open_tcp

HTTP_GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def test_a_port_in_use_is_named() -> None:
    (first,) = bind("127.0.0.1", 0)
    port = first.getsockname()[1]
    with first, pytest.raises(OSError, match="in use") as caught:
        bind("127.0.0.1", port)
    assert caught.value.filename == f"127.0.0.1:{port}"


def test_a_port_is_shared_by_those_who_all_say_so() -> None:
    (first,) = bind("127.0.0.1", 0, shared=True)
    port = first.getsockname()[1]
    with first:
        (second,) = bind("127.0.0.1", port, shared=True)
        second.close()
        with pytest.raises(OSError, match="in use"):
            bind("127.0.0.1", port)


def test_an_address_that_is_nobodys_is_named() -> None:
    with pytest.raises(OSError, match=r"203\.0\.113\.7:0"):
        bind("203.0.113.7", 0)


def test_accepted_sockets_send_small_frames_at_once() -> None:
    (listening,) = bind("127.0.0.1", 0)
    with listening, socket.create_connection(listening.getsockname()):
        listening.setblocking(True)
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_ipv6(tmp_path: Path) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    async with running_broker(tmp_path, tcp__host="::1", http__host="::1") as broker:
        assert broker.running.tcp.host == "::1"
        for wire in ("tcp", "ws"):
            assert (await broker.join("alice", over=wire)).user


async def test_tls_on_both_ports(tmp_path: Path) -> None:
    cert, key, trusting = certificate(tmp_path)
    async with running_broker(tmp_path, tls=trusting, tls__cert=cert, tls__key=key) as broker:
        bob = await broker.user("bob")
        for wire in ("tcp", "ws", "ws-json"):
            peer = await broker.join("alice", over=wire)
            body = "x" * 60_000
            reply = await peer.ok("send", to={"user": bob.id}, key=wire, kind="text", body=body)
            assert reply["seq"]
        stream = trio.SSLStream(
            await trio.open_tcp_stream(broker.running.http.host, broker.running.http.port),
            trusting,
            server_hostname="localhost",
            https_compatible=True,
        )
        await stream.send_all(HTTP_GET)
        answer = b"".join([part async for part in stream])
        assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_tls_handshake_that_never_comes_is_ended(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    cert, key, trusting = certificate(tmp_path)
    async with running_broker(tmp_path, tls=trusting, tls__cert=cert, tls__key=key) as broker:
        for address in (broker.running.tcp, broker.running.http):
            stream = await trio.open_tcp_stream(address.host, address.port)
            await stream.send_all(b"\x16\x03\x01")
            assert b"".join([part async for part in stream]) == b""
        assert broker.node.reader.passes < 20, "it waits for the client, not in a busy loop"
    assert trio.current_time() < 30


async def test_tls_newcomers_beyond_the_limit_are_told_so_too(tmp_path: Path) -> None:
    cert, key, trusting = certificate(tmp_path)
    settings = {"tls__cert": cert, "tls__key": key, "connections__max": 1}
    async with running_broker(tmp_path, tls=trusting, **settings) as broker:
        first = await broker.join("alice")
        second = await broker.tcp()
        await second.carrier.stream.do_handshake()  # type: ignore[attr-defined]
        assert (await second.event("bye"))["code"] == "too_many_connections"
        await first.ok("ping")


# Too many


@pytest.mark.parametrize("wire", ["tcp", "ws", "ws-json"])
async def test_newcomers_beyond_the_limit_are_sent_away_with_a_slot(
    tmp_path: Path, wire: str
) -> None:
    async with running_broker(tmp_path, connections__max=2) as broker:
        there = [await broker.join("alice"), await broker.join("bob")]
        newcomer = await (broker.tcp() if wire == "tcp" else broker.ws(SUBPROTOCOLS[wire]))
        bye = await newcomer.event("bye")
        assert bye["code"] == "too_many_connections"
        assert bye["reconnect"] is True
        assert 0 <= bye["after_ms"] < 30_000
        assert (await newcomer.ended()).status == (None if wire == "tcp" else 4008)
        await newcomer.aclose()
        for peer in there:
            await peer.ok("ping")
        await there[0].aclose()
        await until(broker, connections=1)
        await broker.join("carol", over=wire)


SUBPROTOCOLS = {"ws": "parley.msgpack.v1", "ws-json": "parley.json.v1"}


async def test_health_is_answered_beyond_the_limit_but_not_without_end(tmp_path: Path) -> None:
    async with running_broker(tmp_path, connections__max=1) as broker:
        http = broker.running.http
        streams = [await trio.open_tcp_stream(http.host, http.port) for _ in range(SURPLUS_MIN + 1)]
        await streams[-1].send_all(HTTP_GET)
        assert (await streams[-1].receive_some()).startswith(b"HTTP/1.1 200 ")
        await streams.pop().aclose()
        await until(broker, connections=SURPLUS_MIN)
        streams.append(await trio.open_tcp_stream(http.host, http.port))
        one_too_many = await trio.open_tcp_stream(http.host, http.port)
        assert await one_too_many.receive_some() == b""


async def until(broker: Broker, *, connections: int) -> None:
    """Wait until the broker has noticed that others are gone."""
    while len(broker.node.connections) > connections:
        await trio.lowlevel.checkpoint()


# Ends and deadlines


async def test_who_says_nothing_is_sent_away_in_time(
    broker: Broker, autojump_clock: MockClock
) -> None:
    peer = await broker.tcp()
    assert (await peer.event("bye"))["code"] == "auth_timeout"
    await peer.ended()
    assert 10 <= trio.current_time() < 12


async def test_a_hello_that_trickles_in_is_too_late(
    broker: Broker, autojump_clock: MockClock
) -> None:
    peer = await broker.tcp()
    hello = framed({"t": "hello", "id": 1, "token": "x" * 100})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle, peer, hello)
        assert (await peer.event("bye"))["code"] == "auth_timeout"
        nursery.cancel_scope.cancel()
    assert trio.current_time() < 12


async def test_a_head_that_trickles_in_is_too_late(
    broker: Broker, autojump_clock: MockClock
) -> None:
    http = broker.running.http
    stream = await trio.open_tcp_stream(http.host, http.port)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle, Peer(TcpCarrier(stream)), b"GET /ws HTTP/1.1\r\n" * 99)
        # Closed with bytes unread: the client may see a reset.
        with contextlib.suppress(trio.BrokenResourceError):
            assert await stream.receive_some() == b""
        nursery.cancel_scope.cancel()
    assert trio.current_time() < 12


async def trickle(peer: Peer, data: bytes) -> None:
    try:
        for index in range(len(data)):
            await peer.carrier.stream.send_all(data[index : index + 1])  # type: ignore[attr-defined]
            await trio.sleep(0.5)
    except trio.BrokenResourceError:
        pass


async def test_a_half_closed_client_still_gets_its_replies(broker: Broker) -> None:
    peer = await broker.tcp()
    token = await broker.token("alice")
    bob = await broker.user("bob")
    await peer.send("hello", token=token)
    last = await peer.send("send", to={"user": bob.id}, key="k", kind="text", body="bye bye")
    await peer.carrier.stream.send_eof()  # type: ignore[attr-defined]
    assert (await peer.reply(last))["seq"] == 1
    await peer.ended()
    await until(broker, connections=0)


async def test_a_client_that_closes_without_a_word_is_gone_for_others(broker: Broker) -> None:
    bob = await broker.join("bob")
    alice = await broker.join("alice")
    await bob.aclose()
    await until(broker, connections=1)
    reply = await alice.ok("send", to={"user": bob.user}, key="k", kind="text", body="there?")
    assert reply["online"] is False


# Failures of accept()


class Failing:
    """A listening socket whose next accepts fail, each in its way."""

    def __init__(self, sock: socket.socket, *failures: int) -> None:
        self._sock = sock
        self._failures = list(failures)

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        if self._failures:
            code = self._failures.pop(0)
            raise OSError(code, errno.errorcode[code])
        return self._sock.accept()


@pytest.mark.parametrize("failure", sorted(FAILED_IN_THE_BACKLOG | EXHAUSTED))
async def test_accepting_goes_on_after(
    failure: int, broker: Broker, autojump_clock: MockClock
) -> None:
    (sock,) = bind("127.0.0.1", 0)
    async with trio.open_nursery() as nursery:
        listener = Listener(broker.node, TCP_MSGPACK, None, nursery)
        nursery.start_soon(listener.run, Failing(sock, failure, failure))
        host, port = sock.getsockname()
        peer = await open_tcp(host, port)
        await peer.ok("ping")
        await peer.aclose()
        await until(broker, connections=0)
        nursery.cancel_scope.cancel()


async def test_another_failure_of_accept_is_loud(broker: Broker) -> None:
    (sock,) = bind("127.0.0.1", 0)
    listener = Listener(broker.node, TCP_MSGPACK, None, broker.nursery)
    with socket.create_connection(sock.getsockname()), pytest.raises(OSError, match="EBADF"):
        await listener.run(Failing(sock, errno.EBADF))  # type: ignore[arg-type]


def test_a_broker_without_descriptors_serves_those_it_has_and_recovers(tmp_path: Path) -> None:
    """In a process of its own, whose limit of open files is real."""
    done = subprocess.run(
        [sys.executable, "-c", EXHAUSTED_BROKER, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["served", "recovered"]
    assert "cannot accept connections" in done.stderr
    assert done.stderr.count("cannot accept connections") == 1


EXHAUSTED_BROKER = textwrap.dedent(
    """
    import logging, os, pathlib, resource, socket, sys
    import trio
    from tests.helpers.broker import running_broker

    async def main():
        logging.basicConfig()
        async with running_broker(pathlib.Path(sys.argv[1])) as broker:
            alice = await broker.join("alice")
            tcp = broker.running.tcp
            clients = [socket.socket() for _ in range(40)]
            used = len(os.listdir("/proc/self/fd"))
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + 10, hard))
            for client in clients:
                client.connect((tcp.host, tcp.port))
            await trio.sleep(0.5)
            assert len(broker.node.connections) < len(clients)
            await alice.ok("ping")
            print("served")
            for client in clients:
                client.close()
            await (await broker.join("bob")).ok("ping")
            print("recovered")

    trio.run(main)
    """
)
