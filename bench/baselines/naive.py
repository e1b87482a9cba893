"""The naive server: trio-websocket, one `send_message` per message and member, nothing stored.

It speaks as much of Parley's protocol as the load client needs, so that both are measured by the
same client with the same bytes. `python -m bench.baselines.naive --port N`.
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

import msgpack  # type: ignore[import-untyped]
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from bench import machine

SUBPROTOCOL = "parley.msgpack.v1"


class Conversation:
    """Its members and its next seq."""

    def __init__(self, members: list[int]) -> None:
        self.members = members
        self.seq = 0


class Naive:
    """Who is connected, and the conversations."""

    def __init__(self) -> None:
        self.users = itertools.count(1)
        self.groups = itertools.count(1)
        self.sockets: dict[int, WebSocketConnection] = {}
        self.conversations: dict[str, Conversation] = {}

    async def serve(self, request: WebSocketRequest) -> None:
        """One connection, from the handshake to its end."""
        websocket = await request.accept(subprotocol=SUBPROTOCOL)
        user = next(self.users)
        self.sockets[user] = websocket
        try:
            while True:
                fields = msgpack.unpackb(await websocket.get_message())
                await self.obey(user, websocket, fields)
        except ConnectionClosed:
            pass
        finally:
            del self.sockets[user]

    async def obey(self, user: int, websocket: WebSocketConnection, fields: dict[str, Any]) -> None:
        """Do a command and answer it."""
        reply: dict[str, Any] = {"t": "ok", "id": fields["id"]}
        match fields["t"]:
            case "hello":
                reply["user"] = user
            case "group.create":
                reply["conv"] = conv = f"g/{next(self.groups)}"
                self.conversations[conv] = Conversation([user, *fields["members"]])
            case "group.invite":
                self.conversations[fields["conv"]].members.extend(fields["users"])
            case "send":
                reply |= await self.publish(user, fields)
        await websocket.send_message(msgpack.packb(reply))

    async def publish(self, user: int, fields: dict[str, Any]) -> dict[str, Any]:
        """Send an entry to each member; what the sender's reply says of it."""
        conv = fields.get("conv") or self.direct(user, fields["to"]["user"])
        conversation = self.conversations[conv]
        conversation.seq += 1
        told = {"conv": conv, "seq": conversation.seq, "ts": time.time_ns() // 1_000_000}
        event = {"t": "msg", **told, "from": user, "kind": fields["kind"], "body": fields["body"]}
        for member in conversation.members:
            if (websocket := self.sockets.get(member)) is not None:
                try:
                    await websocket.send_message(msgpack.packb(event))
                except ConnectionClosed:
                    continue
        return told

    def direct(self, user: int, other: int) -> str:
        """The conversation between two users."""
        conv = f"d/{min(user, other)}/{max(user, other)}"
        self.conversations.setdefault(conv, Conversation([user, other]))
        return conv


def main() -> None:
    """Listen and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    machine.pin(machine.SERVER_CPU)
    trio.run(serve_websocket, Naive().serve, "127.0.0.1", port, None)


if __name__ == "__main__":
    main()
