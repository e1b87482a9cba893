"""Real processes: a Redis, a Cassandra of one or three nodes, and three nodes of the broker.

Everything that waits here blocks, and is called in a thread.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import trio

from tests.helpers.peer import Carrier, Ended, Map, TcpCarrier
from tests.helpers.servers import Cassandra, Redis, Server, free_port

HOST = "127.0.0.1"
LEASE_MS = 5_000
DRAIN_MS = 3_000
COMMAND_TIMEOUT_S = 120
PREFIX = "faults"


class BrokerNode(Server):
    """`parley serve` with a data directory of its own; kill, pause, stop and start as any server.

    `tcp` and `http` are its ports, the same after each start.
    """

    def __init__(self, name: str, folder: Path, store: str, redis: str) -> None:
        self.tcp, self.http = free_port(), free_port()
        folder.mkdir(parents=True)
        (folder / "parley.toml").write_text(
            f"[store]\nurl = '{store}'\n"
            f"[redis]\nurl = '{redis}'\nprefix = '{PREFIX}'\n"
            f"[cluster]\nnode = '{name}'\nlease_ms = {LEASE_MS}\n"
            f"[connections]\ndrain_ms = {DRAIN_MS}\n"
            f"[http]\nhost = '{HOST}'\nport = {self.http}\n"
            f"[tcp]\nhost = '{HOST}'\nport = {self.tcp}\n"
        )
        command = [sys.executable, "-m", "broker.cli", "serve", "--data", str(folder)]
        super().__init__(name, command, folder)

    def is_ready(self) -> bool:
        with contextlib.suppress(urllib.error.URLError, OSError):
            answer = urllib.request.urlopen(f"http://{HOST}:{self.http}/readyz", timeout=2)
            return int(answer.status) == 200
        return False

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    async def dial(self) -> Carrier:
        """A client connects."""
        stream = await trio.open_tcp_stream(HOST, self.tcp)
        return SteadyCarrier(stream)


class SteadyCarrier:
    """`TcpCarrier`, to which every way in which a connection ends is its end."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._carrier = TcpCarrier(stream)

    async def send(self, message: Map) -> None:
        try:
            await self._carrier.send(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Ended from None

    async def receive(self) -> Map:
        try:
            return await self._carrier.receive()
        except (trio.BrokenResourceError, trio.ClosedResourceError, AssertionError):
            raise Ended from None

    async def aclose(self) -> None:
        await self._carrier.aclose()


class Site:
    """All of it. `start` before anything else; `stop` kills whatever runs."""

    def __init__(self, folder: Path, *, nodes: int = 3, cassandras: int = 1) -> None:
        self.folder = folder
        self.redis = Redis(folder / "redis")
        self.cassandra = Cassandra(folder / "cassandra", cassandras)
        self.nodes = [
            BrokerNode(f"n{number}", folder / f"n{number}", self.cassandra.url, self.redis.url)
            for number in range(1, nodes + 1)
        ]

    def start(self) -> None:
        self.redis.start()
        self.cassandra.start()
        self.parley(self.nodes[0], "schema", "apply")
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_until_ready()

    def tokens(self, names: list[str]) -> list[str]:
        """Session tokens of users, who are made."""
        return self.parley(self.nodes[0], "token", "--create", *names).split()

    def parley(self, node: BrokerNode, *arguments: str) -> str:
        """What a command of the broker prints, with a node's settings."""
        words = arguments[:2] if arguments[0] == "schema" else arguments[:1]
        rest = arguments[len(words) :]
        command = [sys.executable, "-m", "broker.cli", *words, "--data", str(node.folder), *rest]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def flush_redis(self) -> None:
        """Redis forgets everything that it kept."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection((HOST, self.redis.port), 2) as stream,
        ):
            stream.sendall(b"FLUSHALL\r\n")
            stream.recv(64)

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()
        self.redis.kill()
        self.cassandra.stop()

    def defects(self) -> list[str]:
        """What nodes have logged of failures that no supervisor should have met."""
        found = []
        for node in self.nodes:
            said = (node.folder / "said").read_text(errors="replace").splitlines()
            found += [f"{node.name} said: {line}" for line in said if "defect " in line]
        return found
