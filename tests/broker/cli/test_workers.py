"""`parley serve --workers`: whoever ends is started again, and a signal drains them all."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from broker.cli.failures import Failure
from broker.cli.workers import check_ports, supervise, worker_command
from broker.config import Cluster, Config, Http, Tcp
from tests.broker.cli.running import clean_environment
from tests.helpers.servers import free_port

PATIENCE_S = 20
POLL_S = 0.01
WORKER = """
import os, signal, sys
def end(number, _):
    print("drained" if number == signal.SIGTERM else "stopped", file=open(sys.argv[1], "a"))
    sys.exit(number != signal.SIGTERM)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "slow" in sys.argv else end)
signal.signal(signal.SIGINT, end)
print(os.getpid(), file=open(sys.argv[1], "a"))
print("ready", flush=True)
while True:
    signal.pause()
"""


def worker(told: Path, *how: str) -> list[str]:
    """A process that notes its number, and ends in order at SIGTERM, unless it is `slow`."""
    return [sys.executable, "-c", WORKER, str(told), *how]


class Supervised:
    """What is known of workers that run in the background."""

    def __init__(self) -> None:
        self.ready = trio.Event()
        self.ended = trio.Event()
        self.in_order: bool | None = None


@asynccontextmanager
async def supervised(commands: Mapping[str, list[str]]) -> AsyncIterator[Supervised]:
    """Workers that are all ready; the end of the block waits for their end."""
    seen = Supervised()

    async def run() -> None:
        seen.in_order = await supervise(commands, on_ready=seen.ready.set)
        seen.ended.set()

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await seen.ready.wait()
            yield seen


async def lines(told: Path, count: int) -> list[str]:
    """What a worker has noted, when it is that much."""
    file = trio.Path(told)
    said: list[str] = []
    while len(said) < count:
        await trio.sleep(POLL_S)
        said = (await file.read_text()).split() if await file.exists() else []
    return said


async def test_a_worker_that_is_killed_is_started_again_and_the_others_live_on(
    tmp_path: Path,
) -> None:
    notes = [tmp_path / "1", tmp_path / "2"]
    async with supervised({note.name: worker(note) for note in notes}) as seen:
        (first,), (second,) = [await lines(note, 1) for note in notes]
        os.kill(int(first), signal.SIGKILL)
        again = (await lines(notes[0], 2))[1]
        assert again != first
        signal.raise_signal(signal.SIGTERM)
        await seen.ended.wait()

    assert notes[1].read_text().split() == [second, "drained"]
    assert seen.in_order


async def test_a_second_signal_stops_those_that_drain(tmp_path: Path) -> None:
    note = tmp_path / "1"
    async with supervised({"1": worker(note, "slow")}) as seen:
        await lines(note, 1)
        signal.raise_signal(signal.SIGINT)
        await trio.sleep(0.2)
        assert not seen.ended.is_set()
        signal.raise_signal(signal.SIGINT)

    assert (await lines(note, 2))[1] == "stopped"
    assert seen.in_order is False


async def test_one_that_never_gets_ready_ends_them_all(tmp_path: Path) -> None:
    note = tmp_path / "1"

    def on_ready() -> None:
        raise AssertionError("they are not all ready")

    with pytest.RaisesGroup(pytest.RaisesExc(Failure, match="^b did not start: it ended with 2$")):
        with trio.fail_after(PATIENCE_S):
            bad = ["sh", "-c", f"while ! [ -s {note} ]; do sleep 0.05; done; exit 2"]
            await supervise({"a": worker(note), "b": bad}, on_ready=on_ready)

    assert (await lines(note, 2))[1] == "drained"


async def test_one_that_cannot_even_be_started_ends_them_all_and_is_told(tmp_path: Path) -> None:
    note, missing = tmp_path / "1", str(tmp_path / "missing")

    with pytest.RaisesGroup(pytest.RaisesExc(Failure, match=f"^b did not start: .*'{missing}'$")):
        with trio.fail_after(PATIENCE_S):
            await supervise({"a": worker(note), "b": [missing]}, on_ready=lambda: None)


async def test_one_that_cannot_be_started_again_for_a_while_takes_nobody_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    notes = [tmp_path / "1", tmp_path / "2"]
    commands = {"1": worker(notes[0]), "2": [str(python), *worker(notes[1])[1:]]}
    async with supervised(commands) as seen:
        (first,), (second,) = [await lines(note, 1) for note in notes]
        python.unlink()
        os.kill(int(second), signal.SIGKILL)
        while "No such file" not in caplog.text:
            await trio.lowlevel.checkpoint()
        python.symlink_to(sys.executable)
        assert (await lines(notes[1], 2))[1] != second
        signal.raise_signal(signal.SIGTERM)
        await seen.ended.wait()

    assert notes[0].read_text().split() == [first, "drained"]
    assert seen.in_order


async def test_the_more_often_one_ends_the_longer_is_the_pause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR, "parley.workers"):
        async with supervised({"a": ["sh", "-c", "echo ready; sleep 0.1; exit 3"]}):
            while len(caplog.records) < 3:
                await trio.lowlevel.checkpoint()
            signal.raise_signal(signal.SIGTERM)

    assert [record.getMessage() for record in caplog.records[:3]] == [
        f"a ended with 3; it is started again in {pause} s" for pause in (0.1, 0.2, 0.4)
    ]


def test_a_worker_without_its_parent_drains(tmp_path: Path) -> None:
    ports = ("--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0")
    command = [sys.executable, "-m", "broker.cli", "serve", "--data", str(tmp_path), *ports]
    with subprocess.Popen(
        worker_command(command, 1),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 0


def test_a_port_that_somebody_has_is_refused_before_it_is_shared() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used, free, other = taken.getsockname()[1], free_port(), free_port()
        check_ports(Config(http=Http(port=free), tcp=Tcp(port=other)))
        with pytest.raises(OSError, match="in use"):
            check_ports(Config(http=Http(port=free), tcp=Tcp(port=used)))
        own = Cluster(workers=2, worker_http_port=used - 1)
        with pytest.raises(OSError, match="in use"):
            check_ports(Config(http=Http(port=free), tcp=Tcp(port=other), cluster=own))


@pytest.mark.parametrize("everywhere", ["0.0.0.0", "127.0.0.1"])
def test_a_port_for_two_things_is_refused(everywhere: str) -> None:
    """The kernel would deal its clients out between them."""
    port = free_port()
    with pytest.raises(OSError, match=f"in use.*127.0.0.1:{port}"):
        check_ports(Config(http=Http(host=everywhere, port=port), tcp=Tcp(port=port)))


def test_a_name_with_several_addresses_is_checked_with_all_of_them() -> None:
    check_ports(Config(http=Http("localhost", free_port()), tcp=Tcp("localhost", free_port())))
