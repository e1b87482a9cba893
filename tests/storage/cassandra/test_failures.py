"""What each error of the driver says about a write."""

from __future__ import annotations

import cassandra
import pytest
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionException, ConnectionShutdown
from cassandra.pool import NoConnectionsAvailable
from cassandra.protocol import ErrorMessage, OverloadedErrorMessage

from storage.cassandra.failures import translated
from storage.errors import Unavailable

LOST = ConnectionShutdown("lost")
DOWN = ConnectionException("Host has been marked down or removed")
CASES = [
    (cassandra.Unavailable("too few"), False),
    (cassandra.InvalidRequest("batch too large"), False),
    (OverloadedErrorMessage(0x1001, "busy", None), False),
    (NoHostAvailable("none", {}), False),
    (NoHostAvailable("none", ["a"]), False),
    (NoHostAvailable("none", {"a": DOWN, "b": NoConnectionsAvailable()}), False),
    (NoHostAvailable("none", {"a": DOWN, "b": LOST}), None),
    (cassandra.WriteTimeout("late", write_type=cassandra.WriteType.SIMPLE), None),
    (cassandra.WriteFailure("failed"), None),
    (cassandra.OperationTimedOut(), None),
    (ErrorMessage(0x1700, "CAS result unknown", None), None),
    (LOST, None),
    (ConnectionResetError(), None),
]


@pytest.mark.parametrize(("error", "applied"), CASES, ids=lambda v: type(v).__name__)
def test_nothing_was_written_only_where_that_is_certain(
    error: Exception, applied: bool | None
) -> None:
    found = translated(error)
    assert isinstance(found, Unavailable)
    assert found.applied is applied
    assert str(found).startswith("Cassandra: ")
    assert found.__cause__ is error


def test_a_refusal_after_another_node_was_asked_leaves_a_doubt() -> None:
    found = translated(cassandra.Unavailable("too few"), tried=2)
    assert isinstance(found, Unavailable)
    assert found.applied is None


def test_a_defect_stays_one() -> None:
    error = KeyError("x")
    assert translated(error) is error
