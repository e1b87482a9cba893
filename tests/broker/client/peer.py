"""A scripted broker for tests: says and expects frames one by one, over streams in memory.

It speaks msgspec's msgpack, not the client's, so that the codecs check each other.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio
import trio.testing

from broker.client import Client, connect
from broker.client.address import Address

URL = "tcp://broker.test:7440"
ME = 77
Frame = dict[str, Any]


class Peer:
    """One connection, from the broker's side."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._buffer = bytearray()

    async def hear(self) -> Frame | None:
        """The next command, or None when the client is gone."""
        while True:
            size = int.from_bytes(self._buffer[:4], "big")
            if len(self._buffer) >= 4 and len(self._buffer) >= 4 + size:
                frame = msgspec.msgpack.decode(bytes(self._buffer[4 : 4 + size]))
                del self._buffer[: 4 + size]
                assert isinstance(frame, dict)
                return frame
            try:
                data = await self.stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not data:
                return None
            self._buffer += data

    async def expect(self, name: str, /, **fields: Any) -> Frame:
        """The next command has this name and (at least) these fields."""
        frame = await self.hear()
        assert frame is not None, f"the client left instead of sending {name}"
        assert frame["t"] == name, frame
        assert {field: frame.get(field) for field in fields} == fields
        return frame

    async def say(self, *frames: Frame) -> None:
        """Send frames, in one piece."""
        packed = [msgspec.msgpack.encode(frame) for frame in frames]
        await self.stream.send_all(b"".join(len(p).to_bytes(4, "big") + p for p in packed))

    async def ok(self, command: Frame, **fields: Any) -> None:
        """Answer a command."""
        await self.say({"t": "ok", "id": command["id"], **fields})

    async def error(self, command: Frame, code: str, **fields: Any) -> None:
        """Refuse a command."""
        await self.say({"t": "error", "id": command["id"], "code": code, "message": "no", **fields})

    async def close(self) -> None:
        """Drop the connection."""
        await self.stream.aclose()

    async def welcome(self, **fields: Any) -> Frame:
        """Answer the greeting; returns it."""
        hello = await self.expect("hello")
        await self.ok(hello, **{"user": ME, "heartbeat_ms": 30_000, "node": "n1", **fields})
        return hello

    async def synced(self, *conversations: Frame, expect: Frame | None = None) -> Frame:
        """Answer the `sync` that follows; returns it."""
        sync = await self.expect("sync")
        if expect is not None:
            assert sync["cursors"] == expect
        await self.ok(sync, conversations=list(conversations))
        return sync


class Broker:
    """Where the client connects to: hand `open_stream` to `connect`, then `accept`."""

    def __init__(self) -> None:
        self._put, self._get = trio.open_memory_channel[trio.abc.Stream](100)
        self.refuse = False
        self.dialled_at: list[float] = []

    async def open_stream(
        self, address: Address, context: ssl.SSLContext | None
    ) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.dialled_at.append(trio.current_time())
        if self.refuse:
            raise OSError("connection refused")
        ours, theirs = trio.testing.memory_stream_pair()
        await self._put.send(theirs)
        return ours

    async def accept(self) -> Peer:
        """The next connection."""
        return Peer(await self._get.receive())

    async def accept_welcome(self, *conversations: Frame, **fields: Any) -> Peer:
        """The next connection, greeted and caught up."""
        peer = await self.accept()
        await peer.welcome(**fields)
        await peer.synced(*conversations)
        return peer

    def idle(self) -> bool:
        """Whether nobody has connected since the last `accept`."""
        return self._get.statistics().current_buffer_used == 0


@asynccontextmanager
async def connected(
    broker: Broker, *conversations: Frame, welcome: Frame | None = None, **options: Any
) -> AsyncIterator[tuple[Client, Peer]]:
    """A client and the broker's side of its first connection, after `sync`."""
    peers: list[Peer] = []

    async def greet() -> None:
        peers.append(await broker.accept_welcome(*conversations, **(welcome or {})))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(greet)
        async with connect(URL, token="t", open_stream=broker.open_stream, **options) as client:
            while not peers:
                await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked()
            yield client, peers[0]


def entry(seq: int, body: Any = None, conv: str = "g/1", sender: int = 5, **more: Any) -> Frame:
    """An entry as it is on the wire."""
    fields = {"conv": conv, "seq": seq, "from": sender, "ts": 1_000 + seq, "kind": "text"}
    return {"t": "msg", **fields, "body": f"m{seq}" if body is None else body, **more}


def told(head: int, *entries: Frame, conv: str = "g/1", **more: Any) -> Frame:
    """A conversation as `sync` tells of it."""
    fields = {"conv": conv, "head": head, "read": 0, "unread": 0, "more": False}
    return {**fields, "entries": list(entries), **more}


async def take(client: Client, count: int) -> list[Any]:
    """The next events."""
    return [await anext(client) for _ in range(count)]
