"""Clients at two ends: one that really stops reading, and many that read all that comes."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import msgpack
import trio

from tests.helpers.broker import OPERATOR, Broker
from tests.helpers.peer import Map, Peer, TcpCarrier

BUFFER_BYTES = 4_096
STALLED = "stalled"
"""The device by which the operator finds the connection."""


async def join_unread(broker: Broker, name: str) -> Peer:
    """An open connection whose socket holds next to nothing; from now on nobody reads it."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    await sock.connect((broker.running.tcp.host, broker.running.tcp.port))
    peer = Peer(TcpCarrier(trio.SocketStream(sock)))
    await peer.hello(await broker.token(name), device=STALLED)
    return peer


class Operator:
    """Sees from outside how a connection is."""

    def __init__(self, broker: Broker) -> None:
        self._http = httpx.AsyncClient(
            base_url=f"http://{broker.running.http}",
            headers={"Authorization": f"Bearer {OPERATOR.decode()}"},
            trust_env=False,
        )

    async def stalled(self) -> Map | None:
        """The state of the connection that nobody reads; None when it is gone."""
        page = await self._http.get("/api/monitor/connections", params={"limit": 1_000})
        found: list[Map] = [c for c in page.json()["connections"] if c["device"] == STALLED]
        return found[0] if found else None

    async def counters(self) -> dict[str, int]:
        counters: dict[str, int] = (await self._http.get("/api/monitor/system")).json()["counters"]
        return counters

    async def aclose(self) -> None:
        await self._http.aclose()


class Member:
    """Reads whatever comes and keeps it as it is: a thousand of them are compared at the end."""

    def __init__(self, peer: Peer) -> None:
        assert isinstance(peer.carrier, TcpCarrier)
        self.received = bytearray()
        self._stream = peer.carrier.stream

    async def read(self, ending: bytes) -> None:
        """Until what came ends with a frame that contains these bytes."""
        while ending not in self.received[-4 * len(ending) - 200 :]:
            data = await self._stream.receive_some(1 << 20)
            assert data, "the connection was ended"
            self.received += data


def bodies_in(received: bytes) -> list[Any]:
    """The bodies of the entries in a stream, with their seqs, in order."""
    found = []
    position = 0
    while position < len(received):
        start = position + 4
        position = start + int.from_bytes(received[position:start], "big")
        frame = msgpack.unpackb(received[start:position])
        if frame["t"] == "msg":
            found.append((frame["seq"], frame["body"]))
    return found
