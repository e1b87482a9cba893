"""The processes of one cluster: nodes, a Cassandra and a Redis, all of which may die at any time.

Waits are trio's; what would block is done in threads. Nothing here decides what dies when.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import trio

from tests.broker.cli.running import clean_environment
from tests.helpers.servers import (
    ROOT,
    Cassandra,
    CassandraNode,
    Redis,
    Server,
    ServerFailed,
    free_port,
)

LEASE_MS = 3_000
DRAIN_MS = 1_500
UP_S = 300.0
"""A server is up again by then, with its tries that failed since another was away."""
LOOK_S = 0.1
CASSANDRA_LOOK_S = 0.5
REFUSED_S = 2.0
"""Before a server that ended on its own is started again."""
TRACEBACK_LINES = 40
"""Of a traceback, so many are shown."""
NODE_NAMES = ("a", "b", "c")
BROKER = (sys.executable, "-m", "broker.cli")

TOML = """[http]
port = {http}
[tcp]
port = {tcp}
[connections]
drain_ms = {drain_ms}
[store]
url = "{store}"
[redis]
url = "{redis}"
[cluster]
node = "{name}"
lease_ms = {lease_ms}
"""


class Node(Server):
    """A broker; `command` is what stands before `serve`."""

    def __init__(
        self, folder: Path, name: str, store: str, redis: str, command: Sequence[str]
    ) -> None:
        self.node = name
        self.http, self.tcp = free_port(), free_port()
        self.data = folder / "data"
        self.data.mkdir(parents=True)
        settings = TOML.format(
            http=self.http,
            tcp=self.tcp,
            store=store,
            redis=redis,
            name=name,
            drain_ms=DRAIN_MS,
            lease_ms=LEASE_MS,
        )
        (self.data / "parley.toml").write_text(settings)
        super().__init__(f"node {name}", [*command, "serve", "--data", self.data], folder)

    def is_ready(self) -> bool:
        """It listens, so it has joined."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.tcp), 1):
            return True
        return False

    def defects(self) -> list[str]:
        """What it said that no broker may say, whatever fails."""
        return [
            f"{self.name} said: {what}"
            for what in tracebacks((self.folder / "said").read_text(errors="replace"))
        ]


def tracebacks(said: str) -> list[str]:
    """Those in a node's log, but for what the driver of Cassandra says of lost connections."""
    found = []
    lines = said.splitlines()
    speaker = 0
    for number, line in enumerate(lines):
        if not line.startswith(" "):
            speaker = number
        if line.strip().startswith("Traceback") and " cassandra." not in lines[speaker]:
            found.append(" | ".join(lines[speaker : number + TRACEBACK_LINES]))
    return found


class Machines:
    """All of them."""

    def __init__(self, folder: Path, *, cassandra: int, command: Sequence[str] = BROKER) -> None:
        self.redis = Redis(folder / "redis")
        self.cassandra = Cassandra(folder / "cassandra", cassandra)
        store, redis = self.cassandra.url, self.redis.url
        self.nodes = [
            Node(folder / f"node-{name}", name, store, redis, command) for name in NODE_NAMES
        ]

    @property
    def everything(self) -> list[Server]:
        """In the order in which they must start."""
        return [self.redis, *self.cassandra.nodes, *self.nodes]

    async def start(self) -> None:
        """Start everything, from nothing."""
        await trio.to_thread.run_sync(self._start_stores)
        for node in self.nodes:
            if node is not self.nodes[0]:
                shutil.copy(self.nodes[0].data / "secret", node.data / "secret")
            await up(node)

    def _start_stores(self) -> None:
        self.redis.start()
        self.cassandra.start()
        self.parley("schema", "apply")

    def parley(self, *arguments: str) -> str:
        """What a command of the broker's printed, with the first node's settings."""
        done = subprocess.run(
            [*BROKER, *arguments, "--data", str(self.nodes[0].data)],
            cwd=ROOT,
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ServerFailed(f"parley {arguments[0]}: {done.stderr}")
        return done.stdout

    def kill(self) -> None:
        """The end of everything."""
        for server in reversed(self.everything):
            server.kill()


@contextlib.asynccontextmanager
async def machines(
    folder: Path, *, cassandra: int, command: Sequence[str] = BROKER
) -> AsyncIterator[Machines]:
    """A cluster for the length of a block."""
    made = Machines(folder, cassandra=cassandra, command=command)
    try:
        await made.start()
        yield made
    finally:
        made.kill()


async def up(server: Server) -> int:
    """Start a server and wait until it is ready; how often it ended on its own before that.

    A node ends where Cassandra or Redis is not there, and is to be started again.
    """
    refusals = -1
    look_s = CASSANDRA_LOOK_S if isinstance(server, CassandraNode) else LOOK_S
    with trio.move_on_after(UP_S):
        while True:
            if not server.running:
                refusals += 1
                if refusals:
                    await trio.sleep(REFUSED_S)
                await down(server)  # collects what is left of it
                await trio.to_thread.run_sync(server.launch)
            await trio.sleep(look_s)
            if await trio.to_thread.run_sync(server.is_ready):
                return refusals
    said = (server.folder / "said").read_text(errors="replace")[-2000:]
    raise ServerFailed(f"{server.name} did not get ready; it said: {said}")


async def down(server: Server) -> None:
    """`kill -9`."""
    await trio.to_thread.run_sync(server.kill)


async def drained(server: Server) -> None:
    """SIGTERM, and wait for its end; it is killed where that takes too long."""
    await trio.to_thread.run_sync(server.stop)
