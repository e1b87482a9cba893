"""A whole broker inside the test's own trio loop, on free ports of the loopback."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

from actors.conversation import Conversation
from actors.node import Node
from broker.app import node_of, serve
from broker.config import Config
from broker.running import Running
from broker.security.tokens import Tokens, new_session_id
from storage.interfaces import Store, name_key
from storage.memory import MemoryStore
from storage.records import User
from tests.helpers.peer import Peer, open_tcp, open_websocket

SECRET = b"only the tests know this secret!"
OPERATOR = b"only the tests may look inside!!"
CHEAP = {
    "http.port": 0,
    "tcp.port": 0,
    "passwords.memory_kib": 8,
    "passwords.passes": 1,
}


@dataclass
class Broker:
    """`running` is what `broker.app.serve` gave; `join` is where most tests begin."""

    config: Config
    node: Node
    running: Running
    nursery: trio.Nursery
    tls: ssl.SSLContext | None = None
    users: dict[str, User] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        """What the broker keeps everything in."""
        return self.node.store

    @property
    def nodes(self) -> list[Node]:
        """Of a cluster that is used as one broker, all."""
        return [self.node]

    def active(self, conv: str) -> Conversation:
        """The actor of a conversation that is in use, wherever it is."""
        (actor,) = [
            node.registry.conversations[conv]
            for node in self.nodes
            if conv in node.registry.conversations
        ]
        return actor

    async def tcp(self) -> Peer:
        """A connection that has said nothing yet."""
        return await open_tcp(self.running.tcp.host, self.running.tcp.port, tls=self.tls)

    async def ws(self, subprotocol: str | None = "parley.msgpack.v1") -> Peer:
        """Likewise, over WebSocket; None asks for no subprotocol."""
        http = self.running.http
        return await open_websocket(
            self.nursery, http.host, http.port, subprotocol=subprotocol, tls=self.tls
        )

    async def user(self, name: str) -> User:
        """The account of that name, made (without a password) where it is missing."""
        if name not in self.users:
            found = await self.store.users_by_name([name])
            if not found:
                (found[name_key(name)],) = await self.store.create_users(
                    [User(id=0, name=name)], [None]
                )
            self.users[name] = found[name_key(name)]
        return self.users[name]

    async def token(self, name: str) -> str:
        """A session token for that user; each is a session of its own."""
        user = await self.user(name)
        tokens = Tokens(SECRET, self.config.tokens.access_ttl_s)
        return tokens.issue(user.id, new_session_id(), user.generation)[0]

    async def join(self, name: str, *, over: str = "tcp") -> Peer:
        """An open connection of that user, over `tcp`, `ws` or `ws-json`."""
        token = await self.token(name)
        if over == "tcp":
            peer = await self.tcp()
        else:
            peer = await self.ws("parley.json.v1" if over == "ws-json" else "parley.msgpack.v1")
        await peer.hello(token)
        return peer


def config_with(data: Path, settings: dict[str, Any]) -> Config:
    """A configuration for tests with some dotted keys set, as `connections.max`."""
    config = Config(data=data)
    for key, value in (CHEAP | settings).items():
        config = _replaced(config, key.split("."), value)
    return config


def _replaced(struct: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    if rest:
        value = _replaced(getattr(struct, name), rest, value)
    return msgspec.structs.replace(struct, **{name: value})


@asynccontextmanager
async def running_broker(
    data: Path,
    *,
    store: Store | None = None,
    tls: ssl.SSLContext | None = None,
    **settings: Any,
) -> AsyncIterator[Broker]:
    """A broker with `settings` (dots written as double underscores); a store in memory by default.

    `tls` is what its clients trust. It is cancelled at the end, not drained.
    """
    config = config_with(data, {key.replace("__", "."): v for key, v in settings.items()})
    node = node_of(config, MemoryStore() if store is None else store)
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        running = await nursery.start(partial(serve, config, node, SECRET, OPERATOR))
        yield Broker(config, node, running, nursery, tls)
        nursery.cancel_scope.cancel()
