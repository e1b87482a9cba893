"""A broker of one's own for a replay: a process, a temporary data directory, tokens for users.

What another broker's operator would do by hand is done by the same commands here.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

START_SECONDS = 60.0
TOKEN_LIFE = "7d"
LOG_FILE = "broker.log"
SAID_BYTES = 2_000
_PARLEY = [sys.executable, "-m", "broker.cli"]
_WEBSOCKET = re.compile(r"\bwss?://\S+")
_TCP = re.compile(r"\bTCP\s+(\S+:\d+)")


class HostFailed(Exception):
    """The broker could not be started, or no tokens were to be had; the text says why."""


@dataclass(frozen=True, slots=True)
class Host:
    """A running broker: where to connect, and where its data is."""

    websocket: str
    tcp: str
    data: Path


def raise_file_limit() -> int:
    """Allow this process, and those it starts, as many open files as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@asynccontextmanager
async def own_broker() -> AsyncIterator[Host]:
    """A fresh broker for the length of the block; its data is deleted after it."""
    with tempfile.TemporaryDirectory(prefix="parley-replay-") as directory:
        data = Path(directory)
        command = [*_PARLEY, "serve", "--data", directory, "--log-level", "warning"]
        command += ["--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0"]
        async with trio.open_nursery() as nursery:
            with (data / LOG_FILE).open("wb") as log:
                start = partial(
                    trio.run_process,
                    command,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=_environment(),
                    check=False,
                )
                process: trio.Process = await nursery.start(start)
            nursery.start_soon(_ended, process, data)
            try:
                yield await _greeted(process, data)
            finally:
                nursery.cancel_scope.cancel()


async def tokens(data: Path, names: Iterable[str]) -> list[str]:
    """Session tokens of users of the broker that keeps its data there, made where missing.

    Raises `HostFailed`.
    """
    wanted = "".join(f"{name}\n" for name in names)
    command = [*_PARLEY, "token", "--data", str(data), "--create", "--ttl", TOKEN_LIFE, "-"]
    done = await trio.run_process(
        command,
        stdin=wanted.encode(),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=_environment(),
    )
    if done.returncode:
        raise HostFailed(done.stderr.decode(errors="replace").strip())
    return done.stdout.decode().split()


def _environment() -> dict[str, str]:
    """The environment without settings that were meant for another broker."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}


async def _greeted(process: trio.Process, data: Path) -> Host:
    """Read where the broker listens from what it prints when it is ready."""
    assert process.stdout is not None
    printed = ""
    with trio.move_on_after(START_SECONDS):
        async for piece in process.stdout:
            printed += piece.decode(errors="replace")
            websocket, tcp = _WEBSOCKET.search(printed), _TCP.search(printed)
            if websocket and tcp and printed.endswith("\n"):
                return Host(websocket[0], f"tcp://{tcp[1]}", data)
    raise HostFailed(f"the broker did not say where it listens{_said(data)}")


async def _ended(process: trio.Process, data: Path) -> None:
    status = await process.wait()
    raise HostFailed(f"the broker ended by itself with status {status}{_said(data)}")


def _said(data: Path) -> str:
    """The end of what the broker wrote about itself."""
    said = (data / LOG_FILE).read_bytes()[-SAID_BYTES:].decode(errors="replace").strip()
    return f"; it said: {said}" if said else ""
