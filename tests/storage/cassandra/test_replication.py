"""A store opens only where one node reads what another wrote, and where all decide in one place."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from cassandra.metadata import NetworkTopologyStrategy, ReplicationStrategy, SimpleStrategy
from msgspec.structs import replace

from storage.cassandra import PLACE_NAME, CassandraSettings, open_cassandra, parse_url, schema
from storage.cassandra.connection import connect
from storage.cassandra.replication import check_replication, checked_place
from storage.cassandra.session import Connected
from storage.errors import Unavailable, UnsafeSettings
from tests.helpers.cassandra import another_store, own_keyspace

HERE = "datacenter1"
"""The only data centre of the tests' Cassandra."""


@pytest.fixture
def settings(cassandra_url: str) -> Iterator[CassandraSettings]:
    """A keyspace of one copy with the schema in it."""
    with own_keyspace(cassandra_url) as found:
        schema.apply_blocking(replace(found, replication=(("", 1),)))
        yield found


def replicate(settings: CassandraSettings, replication: str) -> None:
    cluster = connect(settings)
    cluster.connect().execute(
        f"ALTER KEYSPACE {settings.keyspace} WITH replication = {replication}"
    )
    cluster.shutdown()


async def test_what_is_read_from_any_one_of_several_copies_opens_no_store(
    settings: CassandraSettings,
) -> None:
    replicate(settings, "{'class': 'SimpleStrategy', 'replication_factor': 3}")
    for level in ("ONE", "LOCAL_ONE"):
        with pytest.raises(
            UnsafeSettings, match=f"/{settings.keyspace}: consistency: .*{level}.*3"
        ):
            async with open_cassandra(replace(settings, consistency=level)):
                pass
    cluster = connect(settings)
    try:
        await trio.to_thread.run_sync(cluster.connect)
        assert checked_place(cluster, settings) == HERE, "a quorum is good for any number"
    finally:
        cluster.shutdown()


@pytest.mark.parametrize("level", ["ONE", "LOCAL_ONE", "LOCAL_QUORUM", "QUORUM", "ALL"])
async def test_of_one_copy_everything_is_read(settings: CassandraSettings, level: str) -> None:
    async with open_cassandra(replace(settings, consistency=level)) as store:
        await store.ping()


async def test_nodes_that_would_decide_elsewhere_are_refused(settings: CassandraSettings) -> None:
    connected = await trio.to_thread.run_sync(Connected, settings)
    async with another_store(connected) as first:
        await first.agree(PLACE_NAME, "elsewhere")
    connected.close()
    with pytest.raises(UnsafeSettings, match=f"dc: .*elsewhere.*{HERE}"):
        async with open_cassandra(settings):
            pass


async def test_nodes_agree_whether_they_name_their_only_data_centre_or_not(
    settings: CassandraSettings,
) -> None:
    for same in (settings, replace(settings, dc=HERE), replace(settings, consistency="QUORUM")):
        async with open_cassandra(same) as store:
            assert await store.agree(PLACE_NAME, "asked") == HERE


async def test_a_data_centre_that_is_not_there_is_told(settings: CassandraSettings) -> None:
    with pytest.raises(Unavailable, match="dc: no node in atlantis"):
        async with open_cassandra(replace(settings, dc="atlantis")):
            pass


@pytest.mark.parametrize("asked", [(("", 3),), ((HERE, 2),)])
async def test_other_copies_than_there_are_are_told_and_nothing_is_changed(
    settings: CassandraSettings, asked: tuple[tuple[str, int], ...]
) -> None:
    other = replace(settings, replication=asked)
    copies = asked[0][1]
    with pytest.raises(UnsafeSettings) as caught:
        await schema.apply(other)
    told = str(caught.value)
    assert f"replication: the keyspace has {HERE}:1, and the URL asks for {HERE}:{copies}" in told
    assert await schema.apply(replace(settings, replication=((HERE, 1),))) == 0
    # What is told to be done is what helps.
    alter = told[told.index("ALTER") : told.index("}") + 1]
    cluster = connect(settings)
    await trio.to_thread.run_sync(lambda: cluster.connect().execute(alter))
    cluster.shutdown()
    cluster = connect(other)
    await trio.to_thread.run_sync(cluster.connect)
    check_replication(cluster, other)
    cluster.shutdown()


async def test_without_a_wish_the_copies_are_left_as_they_are(settings: CassandraSettings) -> None:
    assert await schema.apply(replace(settings, replication=())) == 0


async def test_a_strategy_of_old_with_as_many_copies_will_do(settings: CassandraSettings) -> None:
    replicate(settings, "{'class': 'SimpleStrategy', 'replication_factor': 1}")
    assert await schema.apply(replace(settings, replication=(("", 1),))) == 0


def cluster_of(strategy: ReplicationStrategy, *centres: str) -> Any:
    """As the driver knows it once it is connected: a keyspace `chat`, and a node in each centre."""
    hosts = [SimpleNamespace(datacenter=name) for name in centres]
    keyspaces = {"chat": SimpleNamespace(replication_strategy=strategy)}
    return SimpleNamespace(
        metadata=SimpleNamespace(keyspaces=keyspaces, all_hosts=lambda: hosts),
    )


ALONE = NetworkTopologyStrategy({"east": "3"})
BOTH = NetworkTopologyStrategy({"east": "3", "west": "3"})
ONE_EACH = NetworkTopologyStrategy({"east": "1", "west": "1"})
EMPTIED = NetworkTopologyStrategy({"east": "3", "west": "0"})
SIMPLE = SimpleStrategy({"replication_factor": "3"})
UNKNOWN = ReplicationStrategy.create("Everywhere", {})


@pytest.mark.parametrize(
    ("options", "strategy", "place"),
    [
        ("", ALONE, "east"),
        ("?dc=east", ALONE, "east"),
        ("?consistency=QUORUM", ALONE, "east"),
        ("", EMPTIED, "east"),
        ("?dc=east", BOTH, "east"),
        ("?dc=west", BOTH, "west"),
        ("?consistency=QUORUM", BOTH, ""),
        ("?dc=west&consistency=QUORUM", BOTH, ""),
        ("?dc=west&consistency=EACH_QUORUM", BOTH, ""),
        ("?dc=west", SIMPLE, "west"),
    ],
)
def test_all_nodes_decide_in_the_place(
    options: str, strategy: ReplicationStrategy, place: str
) -> None:
    settings = parse_url(f"cassandra://a/chat{options}")
    assert checked_place(cluster_of(strategy, "east", "west"), settings) == place


@pytest.mark.parametrize(
    ("options", "strategy", "named"),
    [
        ("", BOTH, "dc: is missing.*east, west"),
        ("", SIMPLE, "dc: is missing.*east, west"),
        ("?dc=north", BOTH, "dc: .*north.*east, west"),
        ("?dc=west", EMPTIED, "dc: .*west.*east"),
        ("?dc=west&consistency=LOCAL_ONE", BOTH, "consistency: .*LOCAL_ONE and 6 copies"),
        ("?dc=west&consistency=ONE", ONE_EACH, "consistency: .*ONE and 2 copies"),
        ("?dc=west&consistency=ONE", UNKNOWN, "consistency: .*ONE and 2 copies"),
    ],
)
def test_what_could_let_two_nodes_win_is_refused(
    options: str, strategy: ReplicationStrategy, named: str
) -> None:
    settings = parse_url(f"cassandra://a/chat{options}")
    with pytest.raises(UnsafeSettings, match=named):
        checked_place(cluster_of(strategy, "east", "west"), settings)
