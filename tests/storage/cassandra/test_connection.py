"""How statements are run: how often each may be sent, what it waits for, and which are conditional.

A conditional write that is sent twice can refuse itself; one that is sent as a plain write is not
known to be refused at all.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from cassandra import ConsistencyLevel, OperationTimedOut
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import (
    ConstantSpeculativeExecutionPolicy,
    DCAwareRoundRobinPolicy,
    FallthroughRetryPolicy,
    HostDistance,
    NoSpeculativeExecutionPolicy,
    TokenAwarePolicy,
)
from cassandra.query import dict_factory, tuple_factory

from storage.cassandra import CassandraStore, parse_url
from storage.cassandra.connection import (
    CONDITIONAL,
    EXACT,
    READ,
    RETRIES_MAX,
    SPECULATIVE_DELAY_S,
    SPECULATIVE_TRIES,
    WRITE,
    _Bounded,
    connect,
)
from storage.cassandra.session import Connected
from storage.cassandra.statements import CQL
from storage.errors import NameTaken
from storage.records import NodeRecord, SlotRecord
from tests.conformance.making import session, user
from tests.helpers.cassandra import empty_store

PROFILES = (READ, WRITE, CONDITIONAL, EXACT, EXEC_PROFILE_DEFAULT)


def cluster_at(options: str = "") -> Cluster:
    """Not connected to anything."""
    return connect(parse_url(f"cassandra://127.0.0.1/chat{options}"))


def profile(name: object, options: str = "") -> ExecutionProfile:
    found: ExecutionProfile = cluster_at(options).profile_manager.profiles[name]
    return found


def test_only_reads_are_asked_of_a_second_node_meanwhile() -> None:
    for name in PROFILES:
        policy = profile(name).speculative_execution_policy
        if name == READ:
            assert isinstance(policy, ConstantSpeculativeExecutionPolicy)
            assert (policy.delay, policy.max_attempts) == (SPECULATIVE_DELAY_S, SPECULATIVE_TRIES)
        else:
            assert isinstance(policy, NoSpeculativeExecutionPolicy)


def test_what_is_conditional_or_exact_is_sent_once() -> None:
    for name in PROFILES:
        policy = profile(name).retry_policy
        expected = FallthroughRetryPolicy if name in (CONDITIONAL, EXACT) else _Bounded
        assert type(policy) is expected


def test_a_lost_connection_is_followed_to_few_other_nodes() -> None:
    decide = _Bounded().on_request_error
    lost = OperationTimedOut()
    for number in range(RETRIES_MAX):
        assert decide(None, None, lost, number) == (_Bounded.RETRY_NEXT_HOST, None)
    for number in (RETRIES_MAX, RETRIES_MAX + 1):
        assert decide(None, None, lost, number) == (_Bounded.RETHROW, None)


@pytest.mark.parametrize(
    ("options", "level", "serial"),
    [
        ("", "LOCAL_QUORUM", "LOCAL_SERIAL"),
        ("?consistency=LOCAL_ONE", "LOCAL_ONE", "LOCAL_SERIAL"),
        ("?consistency=ONE", "ONE", "LOCAL_SERIAL"),
        ("?consistency=QUORUM", "QUORUM", "SERIAL"),
        ("?consistency=EACH_QUORUM", "EACH_QUORUM", "SERIAL"),
        ("?consistency=ALL", "ALL", "SERIAL"),
    ],
)
def test_the_consistency_is_that_of_the_settings(options: str, level: str, serial: str) -> None:
    for name in PROFILES:
        found = profile(name, options)
        expected = serial if name == EXACT else level
        assert found.consistency_level == ConsistencyLevel.name_to_value[expected]
        assert found.serial_consistency_level == ConsistencyLevel.name_to_value[serial]


def test_everything_is_waited_for_as_long_as_the_settings_say() -> None:
    for name in PROFILES:
        assert profile(name).request_timeout == 5.0
        assert profile(name, "?timeout_ms=900").request_timeout == 0.9


def test_conditional_writes_are_answered_with_the_names_of_columns() -> None:
    """A refusal has other columns than a success."""
    for name in PROFILES:
        expected = dict_factory if name == CONDITIONAL else tuple_factory
        assert profile(name).row_factory is expected


@pytest.mark.parametrize("named", ["", "east"])
def test_all_nodes_asked_are_of_one_data_centre(named: str) -> None:
    for name in PROFILES:
        policy = profile(name, f"?dc={named}").load_balancing_policy
        assert isinstance(policy, TokenAwarePolicy)
        assert isinstance(policy._child_policy, DCAwareRoundRobinPolicy)
        assert policy._child_policy.local_dc == named
        assert policy._child_policy.used_hosts_per_remote_dc == 0


def test_without_a_name_it_is_that_of_the_first_host(cassandra: Connected) -> None:
    cluster = cassandra.session.cluster
    (host,) = cluster.metadata.all_hosts()
    for name in PROFILES:
        policy = cluster.profile_manager.profiles[name].load_balancing_policy
        assert policy._child_policy.local_dc == host.datacenter
        assert policy.distance(host) == HostDistance.LOCAL


# Which statements are conditional, and how they are run.


def conditional() -> set[str]:
    """By words, so that no line break or letter case hides one."""
    return {name for name, cql in CQL.items() if "IF" in cql.upper().split()}


def test_only_what_is_conditional_gives_another_result_the_second_time(
    cassandra: Connected,
) -> None:
    for name, binder in cassandra.statements.binders.items():
        assert binder.prepared.is_idempotent == (name not in conditional()), name


async def test_conditional_writes_are_sent_as_such_and_nothing_else_is(
    cassandra: Connected,
) -> None:
    """In a life that needs each of them."""
    names = {id(binder.prepared): name for name, binder in cassandra.statements.binders.items()}
    sent: set[tuple[str, str]] = set()
    send = cassandra.session.execute_async

    def watched(statement: Any, **options: Any) -> Any:
        name = names[id(statement.prepared_statement)]
        sent.add((name, options["execution_profile"]))
        return send(statement, **options)

    async with empty_store(cassandra) as store:
        with (
            patch.object(cassandra.session, "execute_async", watched),
            patch("storage.cassandra.accounts.HALF_MADE_LOOKS", 3),
            patch("storage.cassandra.blocks.BLOCK_IDS", 1),
        ):
            await _accounts(store)
            await _sessions(store)
            await _nodes(store)
    # The only read among them, which wants the names of columns as they do.
    assert {name for name, profile in sent if profile == CONDITIONAL} == conditional() | {"block"}
    assert {name for name, profile in sent if profile != CONDITIONAL}.isdisjoint(conditional())


async def _accounts(store: CassandraStore) -> None:
    (ana,) = await store.create_users([user("ana")], ["hash"])
    await store.update_user(ana.id, {"nickname": "A"})
    await store.set_password(ana.id, "another")
    with pytest.raises(NameTaken):
        await store.create_users([user("bob"), user("ANA")], [None, None])
    # Somebody crashed who had got no further than the name.
    await store.bridge.one(store._bind("claim_name", "eve", 10**6), CONDITIONAL)
    await store.create_users([user("eve")], [None])


async def _sessions(store: CassandraStore) -> None:
    await store.create_session(session("s", 5, b"old", expires=10**6))
    assert await store.rotate(b"old", b"new", now=5, expires=10**6)
    await store.end_session("s", now=6)


async def _nodes(store: CassandraStore) -> None:
    for beat in (1, 2):
        assert await store.beat(NodeRecord(node="a", incarnation="a/1", beat=beat))
    assert await store.remove("a/1", 2)
    for epoch in (1, 2):
        wanted = [SlotRecord(7, "a/1", epoch)]
        assert await store.claim(wanted) == wanted
    assert await store.agree("name", "value") == "value"
