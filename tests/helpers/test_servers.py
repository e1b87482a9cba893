"""A server of the tests never outlives them, and keeps its data for the next start."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.helpers.servers import ROOT, YAML, Redis, _yaml, redis

PATIENCE_S = 10.0


def test_a_server_can_be_killed_paused_and_started_again(tmp_path: Path) -> None:
    with redis(tmp_path, ("--appendonly", "yes")) as server:
        first = server.pid
        server.signal(signal.SIGSTOP)
        assert not server.is_ready()
        server.signal(signal.SIGCONT)
        assert server.is_ready()
        server.kill()
        assert not server.is_ready()
        server.start()
        assert server.is_ready()
        assert server.pid != first


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tests.helpers.servers import Redis\n"
        "server = Redis(Path(sys.argv[1])); server.start(); print(server.port, flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        server = Redis(tmp_path, int(starter.stdout.readline()))
        assert server.is_ready()
        starter.kill()
    deadline = time.monotonic() + PATIENCE_S
    while server.is_ready():
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.02)


def test_only_the_tests_own_cassandra_keeps_nothing_of_what_is_dropped() -> None:
    assert "auto_snapshot" not in YAML.read_text(), "operators start theirs with it"
    assert "\nauto_snapshot: false\n" in _yaml("127.0.0.1", ["127.0.0.1"], (1, 2))
