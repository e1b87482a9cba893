"""Sending what no client should: bytes as they are, past the peer's own encoder."""

from __future__ import annotations

from tests.helpers.peer import Peer, TcpCarrier, WebSocketCarrier, framed


async def send_raw(peer: Peer, payload: bytes) -> None:
    """One frame with this payload: as a message where the transport has messages."""
    carrier = peer.carrier
    if isinstance(carrier, TcpCarrier):
        await carrier.stream.send_all(framed(payload))
    else:
        assert isinstance(carrier, WebSocketCarrier)
        await carrier.websocket.send_message(payload.decode() if carrier.text else payload)
