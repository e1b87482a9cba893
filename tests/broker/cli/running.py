"""A real broker in a process of its own, for tests of the command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TIMEOUT_S = 30


class Broker:
    """`parley serve` with free ports; `greeting` is what it printed when it was ready."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = str(data)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "broker.cli", "serve", "--data", str(data)),
                *("--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0", *arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=clean_environment(),
        )
        # A broker that never gets ready must fail the test, not hang it.
        watchdog = threading.Timer(TIMEOUT_S, self.process.kill)
        watchdog.start()
        self.greeting = self._read_greeting()
        watchdog.cancel()

    def _read_greeting(self) -> str:
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        return "".join(lines)

    @property
    def url(self) -> str:
        """The WebSocket address."""
        found = re.search(r"wss?://\S+/ws", self.greeting)
        assert found, self.process.communicate(timeout=TIMEOUT_S)[1]
        return found[0]

    def end(self, *signals: int) -> tuple[int, str]:
        """Send signals; the exit code and what was on standard error."""
        for each in signals:
            self.process.send_signal(each)
        _, errors = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, errors


@contextmanager
def broker(data: Path, *arguments: str) -> Iterator[Broker]:
    """A broker for the length of a block."""
    running = Broker(data, *arguments)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.communicate(timeout=TIMEOUT_S)


def parley(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """`parley ARGUMENTS` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "broker.cli", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=clean_environment(),
    )


def clean_environment() -> dict[str, str]:
    """Ours, without settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")} | {
        "PYTHONUTF8": "1"
    }
