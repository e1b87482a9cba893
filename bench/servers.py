"""Starting and ending the systems under test, each in a process group and on a core of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench import machine
from bench.jobs import System
from bench.wire import Transport

HOST = "127.0.0.1"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
TOKEN_TIMEOUT_S = 300.0
NATS_VARIABLE = "PARLEY_BENCH_NATS"
LAST_WORDS_CHARS = 300
ROOT = Path(__file__).resolve().parent.parent
"""The repository: `bench` is not installed."""


class Running(NamedTuple):
    """A server that accepts connections."""

    pid: int
    port: int


class ServerFailed(Exception):
    """A server did not start, or ended on its own; with the end of what it said."""


def find_nats(given: str | None) -> str | None:
    """The nats-server binary: as given, by variable, or on the PATH. None if there is none."""
    return shutil.which(given or os.environ.get(NATS_VARIABLE) or "nats-server")


def version_of(binary: str) -> str:
    """What a program says to `--version`."""
    return subprocess.run([binary, "--version"], capture_output=True, text=True).stdout.strip()


def environment() -> dict[str, str]:
    """For what is started here: default settings, one processor for Go, and this repository."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
    path = [str(ROOT), *filter(None, [own.get("PYTHONPATH")])]
    return {**own, "GOMAXPROCS": "1", "PYTHONPATH": os.pathsep.join(path)}


def make_users(data: Path, count: int) -> list[str]:
    """Users and their tokens in a new data directory. Raises `ServerFailed`."""
    names = "".join(f"bench{n}\n" for n in range(count))
    made = subprocess.run(
        [sys.executable, "-m", "broker.cli", "token", "--data", str(data), "--create", "-"],
        input=names,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=TOKEN_TIMEOUT_S,
    )
    tokens = made.stdout.split()
    if made.returncode or len(tokens) != count:
        raise ServerFailed(f"no tokens were made: {last_words(made.stderr.encode())}")
    return tokens


def command(
    system: System, port: int, *, transport: Transport, data: Path, nats: str, profile: Path | None
) -> list[str]:
    """How a system is started on a port."""
    if system == "nats":
        return [nats, "-a", HOST, "-p", str(port)]
    if system != "parley":
        return [sys.executable, "-m", f"bench.baselines.{system}", "--port", str(port)]
    http, tcp = (port, 0) if transport == "ws" else (0, port)
    runner = ["bench.profiled", str(profile)] if profile else ["broker.cli"]
    listen = ["--http", f"{HOST}:{http}", "--tcp", f"{HOST}:{tcp}"]
    quiet = ["--log-level", "warning"]
    return [sys.executable, "-m", *runner, "serve", "--data", str(data), *listen, *quiet]


@contextlib.contextmanager
def serve(
    system: System,
    *,
    transport: Transport = "ws",
    template: Path | None = None,
    nats: str = "nats-server",
    profile: Path | None = None,
    scratch: Path | None = None,
) -> Iterator[Running]:
    """Run a server for the time of the block; Parley on a fresh copy of a data directory.

    Raises `ServerFailed`.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory("parley-bench", dir=scratch)))
        data = folder / "data"
        if system == "parley" and template:
            shutil.copytree(template, data)
        port = free_port()
        said = stack.enter_context((folder / "said").open("w+b"))
        started = command(system, port, transport=transport, data=data, nats=nats, profile=profile)
        process = subprocess.Popen(
            started,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=environment(),
            start_new_session=True,
            preexec_fn=_prepare,
        )
        try:
            _wait_until_open(process, port)
            yield Running(process.pid, port)
            if process.poll() is not None:
                raise ServerFailed(f"{system} ended with {process.returncode}")
        except BaseException as error:
            said.seek(0)
            if last := last_words(said.read()):
                error.add_note(f"{system} said: {last}")
            raise
        finally:
            end(process)


def last_words(said: bytes) -> str:
    """The last line of what a process said, as far as it is worth showing."""
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1][-LAST_WORDS_CHARS:] if lines else ""


def _prepare() -> None:
    """In the child: its core, and the open files it may need."""
    machine.pin(machine.SERVER_CPU)
    machine.raise_file_limit(0)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server((HOST, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _wait_until_open(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1.0):
            return
        time.sleep(0.02)
    raise ServerFailed("the server did not start")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask, then insist; the whole group, so that nothing of it survives."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_TIMEOUT_S)
