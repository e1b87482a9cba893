"""The servers that the cases of a cluster run on: one Cassandra, one Redis, and brokers by need.

All are on one machine and none is pinned to a core, so their shares of it are measured and told
with each figure. What the tests start, the bench starts too, with a larger heap.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import trio

from bench import machine
from bench.jobs import Job, Outcome
from bench.run import load
from bench.servers import HOST, ServerFailed, end, environment, free_port, last_words, make_users
from storage.cassandra import CassandraSettings, open_cassandra, parse_url, schema
from storage.names import SLOTS
from tests.helpers import servers

HEAP_MIB = 1024
"""Of Cassandra: that of the tests is so small that it would be measured instead."""
START_TIMEOUT_S = 60.0
POLL_S = 0.05
KEYSPACE = "parley_bench"
GREETED = b"Ctrl-C drains"
"""The end of what `parley serve` says when it serves, and all its workers with it."""
BROKER = ("broker.cli",)
"""The module that is run as a broker; a baseline is another one."""


class Broker(NamedTuple):
    """A broker that serves; `pids` are its nodes' processes."""

    pids: list[int]
    tcp: int


class World:
    """What all cases of a run share. Made by `open_world`."""

    def __init__(
        self, folder: Path, cassandra: servers.Cassandra, redis: servers.Redis, users: int
    ) -> None:
        self.folder = folder
        self.cassandra = cassandra
        self.redis = redis
        self.url = urlsplit(cassandra.url)._replace(path=f"/{KEYSPACE}").geturl()
        self.data = folder / "data"
        self.data.mkdir()
        (self.data / "parley.toml").write_text(
            f"[store]\nurl = '{self.url}'\n[redis]\nurl = '{redis.url}'\nprefix = '{KEYSPACE}'\n"
        )
        schema.apply_blocking(self.settings)
        self.tokens = make_users(self.data, users)

    @property
    def settings(self) -> CassandraSettings:
        """How the store is reached."""
        return parse_url(self.url)

    @contextlib.contextmanager
    def serve(
        self,
        *,
        workers: int = 1,
        name: str = "bench",
        module: Sequence[str] = BROKER,
        data: Path | None = None,
    ) -> Iterator[Broker]:
        """Run a broker for the time of the block, `workers` nodes behind one port.

        With a data directory of its own it serves from that. Raises `ServerFailed`.
        """
        http, tcp = free_port(), free_port()
        command = [
            *(sys.executable, "-m", *module, "serve", "--data", str(data or self.data)),
            *("--http", f"{HOST}:{http}", "--tcp", f"{HOST}:{tcp}", "--log-level", "warning"),
            *(() if data else ("--workers", str(workers), "--set", f"cluster.node={name}")),
        ]
        with (self.folder / f"said-{tcp}").open("w+b") as said:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=environment(),
                start_new_session=True,
                preexec_fn=_prepare,
            )
            # Its standard input ends with this process, however that ends.
            guard = subprocess.Popen(
                ["sh", "-c", f"read _; kill -9 -{process.pid}"],
                stdin=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                _wait_for_greeting(process, Path(said.name))
                broker = Broker(_nodes(process.pid, workers), tcp)
                if workers > 1:
                    self.settle(workers)
                yield broker
                if process.poll() is not None:
                    raise ServerFailed(f"the broker ended with {process.returncode}")
            except BaseException as error:
                if last := last_words(Path(said.name).read_bytes()):
                    error.add_note(f"the broker said: {last}")
                raise
            finally:
                end(process)
                guard.kill()
                guard.communicate()

    def settle(self, nodes: int) -> None:
        """Wait until so many nodes have about the same share of the slots."""
        trio.run(_settled, self.settings, nodes)

    def load(self, job: Job) -> Outcome:
        """Do a job. Raises `ServerFailed`, also where something got lost."""
        outcome = load(job)
        if outcome.checks and outcome.checks.problems:
            raise ServerFailed("; ".join(outcome.checks.problems))
        return outcome

    def watched(self, broker: Broker) -> dict[str, int]:
        """The processes of servers by their names: who uses the machine's cores."""
        nodes = {f"node {number}": pid for number, pid in enumerate(broker.pids, 1)}
        return {**nodes, "Cassandra": self.cassandra.nodes[0].pid, "Redis": self.redis.pid}

    def bytes_on_disk(self, table: str) -> int:
        """Of a table, in all files of Cassandra; what is still in memory does not count."""
        folders = self.folder.glob(f"cassandra/*/data/data/{KEYSPACE}/{table}-*")
        return sum(file.stat().st_size for folder in folders for file in folder.glob("*.*"))

    def restart_cassandra(self) -> None:
        """After this it reads from its files, and not from what it still had in memory."""
        self.cassandra.nodes[0].stop()
        self.cassandra.start()


@contextlib.contextmanager
def open_world(scratch: Path | None, users: int) -> Iterator[World]:
    """Servers with nothing in them but users. Raises `ServerFailed`."""
    try:
        with (
            tempfile.TemporaryDirectory(prefix="parley-bench", dir=scratch) as made,
            servers.cassandra(Path(made) / "cassandra", heap_mib=HEAP_MIB) as cassandra,
            servers.redis(Path(made) / "redis") as redis,
        ):
            yield World(Path(made), cassandra, redis, users)
    except servers.ServerFailed as error:
        raise ServerFailed(str(error)) from None


async def _settled(settings: CassandraSettings, nodes: int) -> None:
    least = SLOTS // (2 * nodes)
    async with open_cassandra(settings) as store:
        with trio.move_on_after(START_TIMEOUT_S):
            while True:
                living = {record.incarnation for record in await store.nodes()}
                owners = Counter(record.owner for record in await store.slots())
                if owners.keys() == living and sum(n >= least for n in owners.values()) == nodes:
                    return
                await trio.sleep(POLL_S)
    raise ServerFailed(f"{nodes} nodes did not share out the slots")


def _prepare() -> None:
    """In the child: the open files it may need."""
    machine.raise_file_limit(0)


def _wait_for_greeting(process: subprocess.Popen[bytes], said: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        if GREETED in said.read_bytes():
            return
        time.sleep(POLL_S)
    raise ServerFailed("the broker did not start")


def _nodes(pid: int, workers: int) -> list[int]:
    if workers == 1:
        return [pid]
    # A child is noted with the thread that started it.
    threads = Path(f"/proc/{pid}/task").iterdir()
    children = [int(child) for t in threads for child in (t / "children").read_text().split()]
    if len(children) != workers:
        raise ServerFailed(f"{len(children)} processes and not {workers} serve")
    return sorted(children)
