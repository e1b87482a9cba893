"""Real Cassandra and Redis servers of the tests' own, on free ports of the loopback.

`scripts/servers` has got the programs. A server's data is in a folder that is handed in, and it
never outlives the process that started it. `python -m tests.helpers.servers` runs them by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = ROOT / ".servers"
YAML = ROOT / "deploy" / "cassandra.yaml"
READY_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.1
LAST_WORDS_CHARS = 2_000
HEAP_MIB = 256
"""Of each Cassandra: enough for tests."""

UNNAMED = "ALL-UNNAMED"
EXPORTS = (
    *("java.base/jdk.internal.misc", "java.base/jdk.internal.ref", "java.base/java.lang.ref"),
    *("java.management.rmi/com.sun.jmx.remote.internal.rmi", "java.rmi/sun.rmi.registry"),
    *("java.rmi/sun.rmi.server", "java.sql/java.sql", "jdk.unsupported/sun.misc"),
)
OPENS = (
    *("lang", "lang.module", "lang.reflect", "io", "net", "nio"),
    *("util", "util.concurrent", "util.concurrent.atomic"),
)
INTERNAL_OPENS = ("loader", "ref", "reflect", "math", "module", "util.jar")
QUIET = """<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%date %level %logger{0}: %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="OUT"/></root>
</configuration>
"""


class ServerFailed(Exception):
    """A server did not start or ended on its own; with the end of what it said."""


class Server:
    """A process that may be killed, paused and started again, with what it kept.

    Raises `ServerFailed` where it does not get ready.
    """

    def __init__(self, name: str, command: Sequence[str | Path], folder: Path) -> None:
        self.name = name
        self.folder = folder
        self._command = [str(part) for part in command]
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether there is a process, be it paused or not yet ready."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the process, and wait for nothing."""
        with (self.folder / "said").open("ab") as said:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        # Its standard input ends with this process, however that ends.
        self._guard = subprocess.Popen(
            ["sh", "-c", f"read _; kill -9 -{self.pid}"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        self.launch()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline and self._process and self._process.poll() is None:
            if self.is_ready():
                return
            time.sleep(POLL_S)
        self.kill()
        said = (self.folder / "said").read_text(errors="replace")[-LAST_WORDS_CHARS:]
        raise ServerFailed(f"{self.name} did not get ready; it said: {said}")

    def is_ready(self) -> bool:
        """Whether it answers as it should, now."""
        raise NotImplementedError

    def signal(self, number: int) -> None:
        """Send a signal to the process, as SIGSTOP or SIGCONT."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """`kill -9`; what it has written stays for the next start."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, and insist if it does not."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGCONT)
            os.killpg(self.pid, number)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None
        assert self._guard is not None
        self._guard.kill()
        self._guard.communicate()


class Redis(Server):
    """A Redis that keeps nothing on disk unless `options` say so (`("--requirepass", "x")`)."""

    def __init__(self, folder: Path, port: int | None = None, options: Sequence[str] = ()) -> None:
        self.port = port or free_port()
        program = _program("redis-server")
        self.program = str(program)
        own = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder))
        super().__init__("Redis", [program, *own, *options], folder)

    @property
    def url(self) -> str:
        """For the setting `redis.url`."""
        return f"redis://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        """It answers PING, be it with a demand for a password, and has its data loaded."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), 1) as s,
        ):
            s.sendall(b"PING\r\n")
            return s.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        return False


class CassandraNode(Server):
    """One node of a `Cassandra`."""

    def __init__(
        self,
        folder: Path,
        host: str,
        hosts: Sequence[str],
        ports: tuple[int, int],
        heap_mib: int = HEAP_MIB,
    ) -> None:
        self.host = host
        self.port = ports[0]
        self._others = len(hosts) - 1
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cassandra.yaml").write_text(_yaml(host, hosts, ports))
        (folder / "logback.xml").write_text(QUIET)
        command = _java_command(folder, alone=len(hosts) == 1, heap_mib=heap_mib)
        super().__init__(f"Cassandra {host}", command, folder)

    def is_ready(self) -> bool:
        """It answers CQL, knows every other node, and all have the same schema.

        An open port alone says nothing: the tables of the system may yet be missing.
        """
        rows = self.query("SELECT schema_version FROM system.local")
        peers = self.query("SELECT schema_version FROM system.peers_v2")
        versions = {row.schema_version for row in [*rows, *peers]}
        return bool(rows) and len(peers) == self._others and len(versions) == 1

    def query(self, cql: str) -> list[Any]:
        """The rows of a query to this very node; none if it does not answer."""
        from cassandra import DriverException
        from cassandra.cluster import (
            EXEC_PROFILE_DEFAULT,
            Cluster,
            ExecutionProfile,
            NoHostAvailable,
        )
        from cassandra.policies import WhiteListRoundRobinPolicy

        only = ExecutionProfile(WhiteListRoundRobinPolicy([self.host]))
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
            cluster = Cluster(
                [self.host],
                self.port,
                execution_profiles={EXEC_PROFILE_DEFAULT: only},
                protocol_version=5,
            )
            with cluster, contextlib.suppress(DriverException, NoHostAvailable):
                return list(cluster.connect().execute(cql))
        return []


class Cassandra:
    """A cluster of `size` nodes on 127.0.0.1, 127.0.0.2, …, all with the same ports."""

    def __init__(self, folder: Path, size: int = 1, heap_mib: int = HEAP_MIB) -> None:
        hosts = [f"127.0.0.{number}" for number in range(1, size + 1)]
        ports = free_port(hosts), free_port(hosts)
        self.nodes = [CassandraNode(folder / host, host, hosts, ports, heap_mib) for host in hosts]

    @property
    def url(self) -> str:
        """For the setting `store.url`, with a keyspace that is yet to be made."""
        hosts = ",".join(f"{node.host}:{node.port}" for node in self.nodes)
        return f"cassandra://{hosts}/parley?replication={len(self.nodes)}"

    def start(self) -> None:
        """Start all nodes at once: each is a seed, so that none waits for another to join."""
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_until_ready()

    def stop(self) -> None:
        """Stop all."""
        for node in self.nodes:
            node.kill()


@contextlib.contextmanager
def redis(folder: Path | None = None, options: Sequence[str] = ()) -> Iterator[Redis]:
    """A Redis for the length of a block; in a folder that vanishes with it, or in yours."""
    with _folder(folder, "redis") as at:
        server = Redis(at, options=options)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def cassandra(
    folder: Path | None = None, size: int = 1, heap_mib: int = HEAP_MIB
) -> Iterator[Cassandra]:
    """Likewise a Cassandra."""
    with _folder(folder, "cassandra") as at:
        servers = Cassandra(at, size, heap_mib)
        try:
            servers.start()
            yield servers
        finally:
            servers.stop()


@contextlib.contextmanager
def _folder(given: Path | None, name: str) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix=f"parley-{name}-", ignore_cleanup_errors=True) as made:
        yield Path(made)


def free_port(hosts: Sequence[str] = ("127.0.0.1",)) -> int:
    """A port that nobody listens on, on any of these addresses."""
    while True:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            port = 0
            for host in hosts:
                probe = stack.enter_context(socket.create_server((host, port)))
                port = probe.getsockname()[1]
            return port


def _program(name: str) -> Path:
    program = PROGRAMS / "bin" / name
    if not program.exists():
        raise ServerFailed(f"{name} is not there: run scripts/servers")
    return program


def _yaml(host: str, hosts: Sequence[str], ports: tuple[int, int]) -> str:
    """The settings that Parley wants, at this node's addresses; but large batches are refused as
    they are by any server of which nobody has asked otherwise, and no table that is emptied or
    dropped is copied first.
    """
    text = YAML.read_text()
    for key, value in {
        "listen_address": host,
        "rpc_address": host,
        "native_transport_port": ports[0],
        "storage_port": ports[1],
        "      - seeds": f'"{",".join(hosts)}"',
        "batch_size_fail_threshold": "50KiB",
    }.items():
        text, found = re.subn(rf"(?m)^{key}: .*$", f"{key}: {value}", text)
        assert found == 1, f"{YAML} has no {key}"
    return f"{text}\nauto_snapshot: false\n"


def _java_command(folder: Path, *, alone: bool, heap_mib: int) -> list[str | Path]:
    properties = {
        "cassandra.config": (folder / "cassandra.yaml").as_uri(),
        "cassandra.storagedir": folder / "data",
        "cassandra-foreground": "yes",
        "cassandra.superuser_setup_delay_ms": 0,
        "cassandra.skip_wait_for_gossip_to_settle": 0,
        "cassandra.ring_delay_ms": 1 if alone else 3_000,
        "jdk.attach.allowAttachSelf": "true",
        "logback.configurationFile": folder / "logback.xml",
    }
    opens = [
        *(f"java.base/java.{name}" for name in OPENS),
        *(f"java.base/jdk.internal.{name}" for name in INTERNAL_OPENS),
        "java.base/sun.nio.ch",
        "jdk.management/com.sun.management.internal",
    ]
    return [
        _program("java"),
        *("-Xms64m", f"-Xmx{heap_mib}m", "-XX:MaxDirectMemorySize=128m"),
        *("-XX:+UseSerialGC", "-Xss512k"),
        *(f"-D{name}={value}" for name, value in properties.items()),
        *(f"--add-exports={name}={UNNAMED}" for name in EXPORTS),
        *(f"--add-opens={name}={UNNAMED}" for name in opens),
        *("-cp", f"{PROGRAMS / 'cassandra'}/*"),
        "org.apache.cassandra.service.CassandraDaemon",
    ]


def main() -> None:
    """Start a Redis and a Cassandra, print how the tests would use them, run until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.helpers.servers", description=__doc__)
    parser.add_argument("--cassandra", type=int, default=1, metavar="N", help="nodes (0: none)")
    wanted = parser.parse_args()
    # A shell starts what runs in its background with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        print(f"export PARLEY_TEST_REDIS={stack.enter_context(redis()).url}", flush=True)
        if wanted.cassandra:
            url = stack.enter_context(cassandra(size=wanted.cassandra)).url
            print(f"export PARLEY_TEST_CASSANDRA='{url}'", flush=True)
        print("Ctrl-C stops them.", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
