"""A node's log is read for what no broker may say, and only for that."""

from __future__ import annotations

from tests.faults.cluster.machines import tracebacks

FINE = """2026-11-24T17:25:34.811Z WARNING cassandra.cluster: Host 127.0.0.2 has been marked down
  Traceback (most recent call last):
    File "cassandra/cluster.py", line 3634, in cassandra.cluster.ControlConnection._reconnect
  OSError: [Errno 111] Connection refused
2026-11-24T17:25:35.811Z ERROR   parley.actors: the store is not available: Cassandra: away
"""
CAUGHT = """2026-11-24T17:25:36.811Z ERROR   parley.actors: defect 1a2b in g/1
  Traceback (most recent call last):
    File "actors/conversation.py", line 1, in decide
  KeyError: 'x'
"""
CRASHED = """Traceback (most recent call last):
  File "broker/cli/main.py", line 98, in main
RuntimeError
"""


def test_the_drivers_complaints_are_no_defects() -> None:
    assert tracebacks(FINE) == []


def test_what_a_supervisor_caught_and_a_crash_are_told_with_who_said_it() -> None:
    caught, crashed = tracebacks(FINE + CAUGHT + FINE + CRASHED)
    assert caught.startswith(CAUGHT.splitlines()[0])
    assert "KeyError" in caught
    assert "RuntimeError" in crashed
