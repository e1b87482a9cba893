"""`parley serve`: says where it is, stops when asked, and fails in a line."""

import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

import broker.app
from broker.cli.serve import _serve
from broker.config import Config
from broker.running import Address, Running, reachable
from broker.security.secret import SECRET_FILE
from storage.cassandra.connection import CONNECT_TIMEOUT_S
from tests.broker.cli.running import TIMEOUT_S, clean_environment, parley
from tests.broker.cli.running import broker as running_broker


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_in_order(tmp_path: Path, number: int) -> None:
    with running_broker(tmp_path / "data") as broker:
        code, errors = broker.end(number)

    assert code == 0
    assert "Traceback" not in errors


def test_the_first_start_makes_the_directory_and_its_secret(tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"

    with running_broker(data):
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        assert stat.S_IMODE((data / SECRET_FILE).stat().st_mode) == 0o600


def test_the_greeting_has_the_real_addresses_and_a_first_command(tmp_path: Path) -> None:
    with running_broker(tmp_path) as broker:
        host, port = broker.url.removeprefix("ws://").removesuffix("/ws").split(":")
        with socket.create_connection((host, int(port)), timeout=10):
            pass

    assert f"http://{host}:{port}\n" in broker.greeting
    assert f"chat {broker.url} --data {tmp_path} --room lobby --as alice" in broker.greeting
    assert ":0" not in broker.greeting


def test_a_port_in_use_is_a_line_and_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = parley("serve", "--data", tmp_path, "--http", address, "--tcp", "127.0.0.1:0")

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_broker_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with running_broker(tmp_path):
        done = parley("serve", "--data", tmp_path, "--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0")

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(tmp_path) in done.stderr


def test_a_certificate_that_is_not_there_is_a_line_and_1(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    done = parley("serve", "--data", tmp_path, "--tls-cert", missing, "--tls-key", missing)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_that_waits_for_a_store_ends_at_once(tmp_path: Path, number: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"cassandra://127.0.0.1:{silent.getsockname()[1]}/parley"
        settings = ("--set", f"store.url={url}", "--set", "redis.url=redis://127.0.0.1:1")
        with subprocess.Popen(
            [*(sys.executable, "-m", "broker.cli", "serve", "--data", str(tmp_path)), *settings],
            stderr=subprocess.PIPE,
            env=clean_environment(),
        ) as process:
            silent.settimeout(TIMEOUT_S)
            with silent.accept()[0]:
                process.send_signal(number)
                _, errors = process.communicate(timeout=CONNECT_TIMEOUT_S / 2)

    assert (process.returncode, errors) == (0, b"")


class SlowBroker:
    """Stands in for the app: begins to drain when told, and ends when `drained` is set."""

    def __init__(self) -> None:
        self.draining = trio.Event()
        self.drained = trio.Event()
        self.cancelled = False

    async def run(self, config: Config, *, task_status: trio.TaskStatus[Running]) -> None:
        address = Address("127.0.0.1", 1)
        task_status.started(Running(address, address, self.draining.set))
        try:
            await self.drained.wait()
        except trio.Cancelled:
            self.cancelled = True
            raise


@asynccontextmanager
async def serving(
    slow: SlowBroker, monkeypatch: pytest.MonkeyPatch, *, as_worker: bool = False
) -> AsyncIterator[list[bool]]:
    """`parley serve` around it; the list gets whether the end was orderly, at the end."""
    monkeypatch.setattr(broker.app, "run", slow.run)
    orderly: list[bool] = []

    async def serve() -> None:
        orderly.append(await _serve(Config(), as_worker))

    # A worker looks at its standard input for the end of its parent.
    parent, stdin = socket.socketpair()
    with parent, stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await trio.testing.wait_all_tasks_blocked()
            yield orderly


async def test_a_second_signal_does_not_wait_for_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SlowBroker()

    async with serving(slow, monkeypatch) as orderly:
        signal.raise_signal(signal.SIGINT)
        await slow.draining.wait()
        assert not slow.cancelled
        signal.raise_signal(signal.SIGTERM)

    assert slow.cancelled
    assert orderly == [False]


@pytest.mark.parametrize("first", [[], [signal.SIGTERM]])
async def test_a_worker_stops_at_once_when_its_parent_insists(
    monkeypatch: pytest.MonkeyPatch, first: list[signal.Signals]
) -> None:
    slow = SlowBroker()

    async with serving(slow, monkeypatch, as_worker=True) as orderly:
        for number in [*first, signal.SIGINT]:
            signal.raise_signal(number)
            await trio.testing.wait_all_tasks_blocked()

    assert slow.cancelled
    assert orderly == [False]


@pytest.mark.parametrize(("as_worker", "times"), [(False, 1), (True, 2)], ids=["alone", "a worker"])
async def test_the_drain_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, as_worker: bool, times: int
) -> None:
    """A worker is told as often as one likes, as where every process of a service gets SIGTERM."""
    slow = SlowBroker()

    async with serving(slow, monkeypatch, as_worker=as_worker) as orderly:
        for _ in range(times):
            signal.raise_signal(signal.SIGTERM)
            await slow.draining.wait()
            await trio.testing.wait_all_tasks_blocked()
        assert orderly == []
        slow.drained.set()

    assert not slow.cancelled
    assert orderly == [True]


async def test_a_failure_of_the_broker_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(config: Config, *, task_status: trio.TaskStatus[Running]) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(broker.app, "run", run)

    with pytest.RaisesGroup(OSError, flatten_subgroups=True):
        await _serve(Config())


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        (Address("0.0.0.0", 7400), "127.0.0.1:7400"),
        (Address("::", 7400), "[::1]:7400"),
        (Address("fe80::1", 1), "[fe80::1]:1"),
        (Address("example.org", 443), "example.org:443"),
    ],
)
def test_an_address_is_said_so_that_one_can_connect_to_it(bound: Address, said: str) -> None:
    assert str(reachable(bound)) == said
