"""Connections of clients whose server may be killed or stopped at any moment.

However a connection breaks, its reader is told by `Ended`; who writes is told nothing.
"""

from __future__ import annotations

import contextlib
from typing import Any

import trio
from trio_websocket import ConnectionClosed, HandshakeError, wrap_client_stream

from tests.helpers.peer import Carrier, Ended, Map, TcpCarrier, WebSocketCarrier

GOODBYE_S = 0.2
"""For a WebSocket's closing handshake; a server that is paused would never answer."""
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionClosed, OSError)


class KilledTcp(TcpCarrier):
    """A stream that may end within a frame."""

    async def _exactly(self, count: int) -> bytes:
        while len(self._received) < count:
            data = await self.stream.receive_some(65536)
            if not data:
                raise Ended
            self._received += data
        taken, self._received = self._received[:count], self._received[count:]
        return taken


class Breakable:
    """A carrier that several tasks write to."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._writing = trio.Lock()

    async def send(self, message: Map) -> None:
        """A frame goes out as a whole, or the connection is broken and its reader will know."""
        async with self._writing:
            with trio.CancelScope(shield=True), contextlib.suppress(Ended, *BROKEN):
                await self._carrier.send(message)

    async def receive(self) -> Map:
        """The next frame. Raises `Ended`."""
        try:
            return await self._carrier.receive()
        except BROKEN:
            raise Ended from None

    async def aclose(self) -> None:
        """At once, or nearly."""
        with trio.move_on_after(GOODBYE_S), contextlib.suppress(Ended, *BROKEN):
            await self._carrier.aclose()


async def dial_tcp(port: int) -> Carrier:
    """Raises `OSError`."""
    return Breakable(KilledTcp(await trio.open_tcp_stream("127.0.0.1", port)))


async def dial_websocket(nursery: trio.Nursery, port: int, *, text: bool) -> Carrier:
    """Raises `OSError` or `Ended`. `nursery` runs what reads."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    subprotocol = "parley.json.v1" if text else "parley.msgpack.v1"
    done = False
    try:
        websocket: Any = await wrap_client_stream(
            nursery, stream, f"127.0.0.1:{port}", "/ws", subprotocols=[subprotocol]
        )
        done = True
    except (HandshakeError, *BROKEN) as error:
        raise Ended from error
    finally:
        if not done:
            await trio.aclose_forcefully(stream)
    return Breakable(WebSocketCarrier(websocket, text=text))
