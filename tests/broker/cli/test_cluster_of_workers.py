"""`parley serve --workers` for real: Cassandra, Redis, two processes behind one port."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from storage.cassandra import schema
from tests.broker.cli.running import clean_environment, parley
from tests.helpers.cassandra import own_keyspace
from tests.helpers.peer import open_tcp
from tests.helpers.servers import free_port

HOST = "127.0.0.1"
NAMES = ["ann", "bob", "cid", "dot", "eve", "fay"]
LEASE_MS = 4_000
PATIENCE_S = 60
POLL_S = 0.2


@pytest.fixture
def data(tmp_path: Path, cassandra_url: str, redis_url: str) -> Iterator[Path]:
    """A data directory with the settings of a cluster that nobody else has, and its tables."""
    with own_keyspace(cassandra_url) as settings:
        url = urlsplit(cassandra_url)._replace(path=f"/{settings.keyspace}").geturl()
        (tmp_path / "parley.toml").write_text(
            f"[store]\nurl = '{url}'\n"
            f"[redis]\nurl = '{redis_url}'\nprefix = '{settings.keyspace}'\n"
            f"[cluster]\nnode = 'here'\nlease_ms = {LEASE_MS}\n"
        )
        # Two dozen tables may take longer than a command of these tests is given.
        trio.run(schema.apply, settings)
        done = parley("schema", "apply", "--data", tmp_path)
        assert done.stdout.endswith("nothing was to be done\n"), done.stderr
        yield tmp_path


@contextlib.contextmanager
def workers(data: Path, http: int, tcp: int, own: int = 0) -> Iterator[subprocess.Popen[str]]:
    """Two of them, from when they have greeted; `own` is the first one's own port."""
    listen = ["--http", f"{HOST}:{http}", "--tcp", f"{HOST}:{tcp}", "--workers", "2"]
    listen += ["--set", f"cluster.worker_http_port={own}"] if own else []
    with subprocess.Popen(
        [sys.executable, "-m", "broker.cli", "serve", "--data", str(data), *listen],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=clean_environment(),
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert any("Workers    2" in line for line in process.stdout)
            yield process
        finally:
            process.kill()


def status(data: Path) -> dict[str, Any]:
    done = parley("cluster", "status", "--json", "--data", data)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def monitor(data: Path, http: int) -> dict[str, Any]:
    """What one of the workers knows of the cluster itself."""
    operator = {"Authorization": f"Bearer {(data / 'operator').read_text().strip()}"}
    url = f"http://{HOST}:{http}/api/monitor/cluster"
    found: dict[str, Any] = httpx.get(url, headers=operator, trust_env=False).json()
    return found


def alive(seen: dict[str, Any]) -> set[str]:
    return {node["incarnation"] for node in seen["nodes"] if node["state"] == "alive"}


def two_free_ports() -> int:
    """The first of two that follow each other."""
    while True:
        first = free_port()
        with contextlib.suppress(OSError), socket.create_server((HOST, first + 1)):
            return first


async def everybody_hears_everybody(port: int, tokens: list[str]) -> None:
    """Connections of both workers, as the kernel deals them out."""
    peers = [await open_tcp(HOST, port) for _ in tokens]
    users = [(await peer.hello(t))["user"] for peer, t in zip(peers, tokens, strict=True)]
    group = (await peers[0].ok("group.create", title="Tea", members=users[1:]))["conv"]
    for number, peer in enumerate(peers):
        await peer.ok("send", conv=group, key=f"{port}-{number}", kind="text", body=str(number))
    for peer in peers:
        heard = []
        while len(heard) < len(peers) - 1:
            event = await peer.event("msg")
            heard += [event["body"]] if event["kind"] == "text" else []
        assert len(set(heard)) == len(peers) - 1
        await peer.aclose()


def children(process: subprocess.Popen[str]) -> set[int]:
    """The workers' numbers; whichever thread has started them."""
    lists = Path(f"/proc/{process.pid}/task").glob("*/children")
    return {int(number) for each in lists for number in each.read_text().split()}


def test_two_workers_are_one_broker_and_one_that_is_killed_comes_back(data: Path) -> None:
    http, tcp = free_port(), free_port()
    with workers(data, http, tcp) as process:
        tokens = parley("token", "--data", data, "--create", *NAMES).stdout.split()
        before = status(data)
        assert {node["node"] for node in before["nodes"]} == {"here-1", "here-2"}
        assert (len(alive(before)), before["slots_unowned"]) == (2, 0)
        trio.run(everybody_hears_everybody, tcp, tokens)
        seen = monitor(data, http)
        assert seen["clustered"]
        assert {node["incarnation"] for node in seen["nodes"]} == alive(status(data))

        killed, survivor = children(process)
        os.kill(killed, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_S
        while (
            not alive(after := status(data)) - alive(before)
            or len(alive(after)) < 2
            or after["slots_unowned"]
        ):
            assert time.monotonic() < deadline, after
            time.sleep(POLL_S)
        assert survivor in children(process)
        assert killed not in children(process)
        trio.run(everybody_hears_everybody, tcp, tokens)

        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    assert alive(status(data)) == set()


def test_each_worker_can_be_watched_alone(data: Path) -> None:
    http, tcp, own = free_port(), free_port(), two_free_ports()
    with workers(data, http, tcp, own) as process:
        for _ in range(3):
            assert [monitor(data, own + n)["node"] for n in range(2)] == ["here-1", "here-2"]
        for n in range(2):
            said = httpx.get(f"http://{HOST}:{own + n}/metrics", trust_env=False).text
            assert "parley_connections" in said
        deadline = time.monotonic() + PATIENCE_S
        while True:
            told = {node["node"]: node["http"] for node in status(data)["nodes"]}
            if told == {"here-1": f"{HOST}:{own}", "here-2": f"{HOST}:{own + 1}"}:
                break
            assert time.monotonic() < deadline, told
            time.sleep(POLL_S)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_a_node_with_another_secret_is_refused(data: Path) -> None:
    assert parley("token", "--data", data, "--create", "ann").returncode == 0
    (data / "secret").unlink()
    done = parley("serve", "--data", data, "--http", f"{HOST}:0", "--tcp", f"{HOST}:0")

    assert done.returncode == 1
    assert "sign with another secret" in done.stderr
    assert "Traceback" not in done.stderr
