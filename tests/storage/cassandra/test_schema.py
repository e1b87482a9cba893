"""The schema is made once, is the same the second time, and is never older than the data."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from storage.cassandra import CassandraSettings, open_cassandra, parse_url, schema
from storage.cassandra.connection import connect
from storage.errors import SchemaTooNew, Unavailable
from tests.helpers.cassandra import own_keyspace
from tests.helpers.servers import free_port


@pytest.fixture
def settings(cassandra_url: str) -> Iterator[CassandraSettings]:
    with own_keyspace(cassandra_url) as found:
        yield found


async def test_a_store_opens_once_its_schema_was_applied(settings: CassandraSettings) -> None:
    with pytest.raises(Unavailable, match="parley schema apply"):
        async with open_cassandra(settings):
            pass
    assert await schema.apply(settings) == len(schema.steps())
    assert await schema.apply(settings) == 0
    async with open_cassandra(settings) as store:
        await store.ping()


async def test_what_a_newer_version_wrote_is_not_touched(settings: CassandraSettings) -> None:
    await schema.apply(settings)
    cluster = connect(settings)
    newer = len(schema.steps()) + 1
    cluster.connect().execute(
        f"INSERT INTO {settings.keyspace}.schema_version (kind, version) VALUES (0, {newer})"
    )
    cluster.shutdown()
    with pytest.raises(SchemaTooNew, match=f"version {newer}"):
        await schema.apply(settings)
    with pytest.raises(SchemaTooNew, match=f"version {newer}"):
        async with open_cassandra(settings):
            pass


async def test_half_of_a_schema_is_completed(settings: CassandraSettings) -> None:
    statements = schema.show(settings).split(";")
    cluster = connect(settings)
    session = cluster.connect()
    for statement in statements[:5]:
        session.execute(statement)
    cluster.shutdown()
    assert await schema.apply(settings) == len(schema.steps())
    async with open_cassandra(settings) as store:
        await store.ping()


def test_what_would_be_run_is_shown() -> None:
    text = schema.show(parse_url("cassandra://a/chat?replication=east:3,west:2"))
    assert text.startswith(
        "CREATE KEYSPACE IF NOT EXISTS chat WITH replication ="
        " {'class': 'NetworkTopologyStrategy', 'east': 3, 'west': 2};\n\nUSE chat;"
    )
    assert text.count("CREATE TABLE IF NOT EXISTS") == sum(map(len, schema.steps())) + 1
    assert "'replication_factor': 3" in schema.show(parse_url("cassandra://a/chat"))


async def test_a_cluster_that_is_not_there_is_named(settings: CassandraSettings) -> None:
    port = free_port()
    nowhere = msgspec.structs.replace(settings, hosts=(("127.0.0.1", port),))
    for opening in (open_cassandra(nowhere).__aenter__, lambda: schema.apply(nowhere)):
        with pytest.raises(Unavailable, match=rf"cassandra://127\.0\.0\.1:{port}/"):
            await opening()


async def test_files_for_tls_that_are_not_there_are_told(settings: CassandraSettings) -> None:
    with pytest.raises(Unavailable, match="TLS"):
        await schema.apply(msgspec.structs.replace(settings, tls=True, ca="/nowhere/ca.pem"))
