"""A disk that is full or read-only: said clearly, nothing acknowledged that is not stored.

The broker is a process of its own, whose files may not grow beyond a limit that the test moves.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from storage.sqlite import SqliteStore, open_sqlite
from tests.broker.cli.running import TIMEOUT_S, Broker, clean_environment, parley
from tests.broker.cli.running import broker as running
from tests.faults.test_kill import read_back, tcp_address
from tests.helpers.broker import running_broker
from tests.helpers.peer import Map, Peer, open_tcp

BODY = "x" * 2_000
ROOM_BYTES = 200_000
CAP_DAC_OVERRIDE, PR_CAPBSET_DROP = 1, 24
UNTIL_FULL_MAX = 2_000


def files_may_have(broker: Broker, limit: int) -> None:
    _, hard = resource.prlimit(broker.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(broker.process.pid, resource.RLIMIT_FSIZE, (limit, hard))


def biggest_file(data: Path) -> int:
    return max(file.stat().st_size for file in data.iterdir())


async def send(peer: Peer, number: int) -> Map:
    return await peer.ask(
        "send", conv="d/1/2", key=f"{number}", kind="text", body=f"{number}{BODY}"
    )


async def fill(peer: Peer) -> tuple[dict[int, int], int]:
    """Send until it fails: what was acknowledged, and the number of the one that was refused."""
    seqs: dict[int, int] = {}
    for number in range(UNTIL_FULL_MAX):
        reply = await send(peer, number)
        if reply["t"] == "error":
            assert (reply["code"], reply["retry"]) == ("unavailable", True), reply
            return seqs, number
        seqs[number] = reply["seq"]
    raise AssertionError("it never became full")


async def go_on(peer: Peer, seqs: dict[int, int], refused: int) -> None:
    """There is room again: the same key works, so do new ones, and old ones are recognised."""
    for number in range(refused, refused + 5):
        reply = await send(peer, number)
        assert reply["t"] == "ok", reply
        seqs[number] = reply["seq"]
    assert (await send(peer, 0))["seq"] == seqs[0]
    assert sorted(seqs.values()) == list(range(1, len(seqs) + 1)), "a hole"


async def test_a_disk_that_fills_up_under_the_broker(tmp_path: Path) -> None:
    with running(tmp_path) as broker:
        ann, seqs = await fill_and_go_on(tmp_path, broker)
        _, errors = broker.end(signal.SIGKILL)
    assert "not available" in errors
    assert "Traceback" not in errors
    await check_after_restart(tmp_path, ann, seqs)


async def fill_and_go_on(tmp_path: Path, broker: Broker) -> tuple[str, dict[int, int]]:
    """A token, and what was acknowledged before it was full and after."""
    ann, bob = parley("token", "--data", tmp_path, "--create", "ann", "bob").stdout.split()
    with trio.fail_after(TIMEOUT_S):
        peer, other = [await open_tcp(*tcp_address(broker)) for _ in range(2)]
        await peer.hello(ann)
        await other.hello(bob)
        files_may_have(broker, biggest_file(tmp_path) + ROOM_BYTES)
        seqs, refused = await fill(peer)
        assert seqs, "it was full from the beginning"
        for _ in range(3):
            assert (await send(peer, refused))["code"] == "unavailable"
        assert (await peer.ok("history", conv="d/1/2", limit=1))["head"] == len(seqs)
        files_may_have(broker, resource.RLIM_INFINITY)
        await go_on(peer, seqs, refused)
        live = [await other.event("msg") for _ in seqs]
        assert [event["seq"] for event in live] == list(range(1, len(seqs) + 1))
    return ann, seqs


async def check_after_restart(data: Path, token: str, seqs: dict[int, int]) -> None:
    with running(data) as broker:
        log = await read_back(broker, token, "d/1/2")
    assert {entry["seq"]: entry["body"] for entry in log} == {
        seq: f"{number}{BODY}" for number, seq in seqs.items()
    }


async def set_pages(store: SqliteStore, more: int) -> None:
    """Let the database grow by so many pages from now on, and no further."""
    await store._write(
        lambda db: db.execute(
            f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0] + more}"
        )
    )


async def test_a_database_that_may_not_grow(tmp_path: Path) -> None:
    async with (
        open_sqlite(tmp_path / "parley.sqlite", exclusive=True) as store,
        running_broker(tmp_path, store=store) as broker,
    ):
        peer, other = await broker.join("ann"), await broker.join("bob")
        await set_pages(store, 20)
        with trio.fail_after(TIMEOUT_S):
            seqs, refused = await fill(peer)
            assert seqs, "it was full from the beginning"
            await set_pages(store, 10_000)
            await go_on(peer, seqs, refused)
            live = [await other.event("msg") for _ in seqs]
        assert [event["seq"] for event in live] == list(range(1, len(seqs) + 1))


def start(data: Path, before: Callable[[], None]) -> subprocess.CompletedProcess[str]:
    """A broker that cannot start, with something done to its process first."""
    serve = [sys.executable, "-m", "broker.cli", "serve", "--data", str(data)]
    return subprocess.run(
        [*serve, "--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=clean_environment(),
        preexec_fn=before,
    )


def obey_permissions() -> None:
    """Root too; others do so anyway, and may not drop what they do not have."""
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


def write_nothing() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def check_refusal(done: subprocess.CompletedProcess[str], place: Path) -> None:
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert str(place) in last


@pytest.mark.parametrize("made", [True, False], ids=["used before", "new"])
def test_a_read_only_directory_is_named(tmp_path: Path, made: bool) -> None:
    data = tmp_path / "data"
    if made:
        with_data(data)
    else:
        data.mkdir(mode=0o700)
    for path in (data, *data.iterdir()):
        os.chmod(path, 0o500 if path.is_dir() else 0o400)
    check_refusal(start(data, obey_permissions), data)


@pytest.mark.parametrize("made", [True, False], ids=["used before", "new"])
def test_a_disk_that_is_full_at_the_start_is_named(tmp_path: Path, made: bool) -> None:
    data = tmp_path / "data"
    if made:
        with_data(data)
    check_refusal(start(data, write_nothing), data)


def with_data(data: Path) -> None:
    with running(data):
        pass
