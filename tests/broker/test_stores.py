"""Opening what the settings name: what only the stores can refuse; no password in any text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

import msgspec
import pytest
import trio

from broker.config import Config, Redis, Store
from broker.config_sources import ConfigError
from broker.security.secret import SecretError
from broker.stores import (
    SECRET_NAME,
    ClaimingPresence,
    check_claim,
    check_names,
    check_secret,
    open_leases,
    open_store,
    open_stores,
)
from storage.cassandra import PLACE_NAME, schema
from storage.cassandra.connection import connect
from storage.cassandra.settings import parse_url
from storage.errors import Unavailable, UnsafeSettings
from storage.memory import MemoryEphemeral, MemoryLeases, MemoryPresence
from storage.records import User
from tests.docs.markdown import DOCS
from tests.helpers.cassandra import own_keyspace
from tests.helpers.servers import free_port

SECRET = b"s" * 32
OTHER = b"t" * 32
OPERATIONS = DOCS / "operations.md"


def at(data: Path, *, store: str, redis: str, prefix: str = "parley") -> Config:
    """A configuration with these URLs."""
    return Config(data=data, store=Store(url=store), redis=Redis(url=redis, prefix=prefix))


@contextmanager
def own_store(cassandra_url: str) -> Iterator[tuple[str, str]]:
    """The URL and the name of a keyspace that nobody else has, with its tables."""
    with own_keyspace(cassandra_url) as settings:
        url = urlsplit(cassandra_url)._replace(path=f"/{settings.keyspace}").geturl()
        schema.apply_blocking(parse_url(url))
        yield url, settings.keyspace


@pytest.fixture
def config(tmp_path: Path, cassandra_url: str, redis_url: str) -> Iterator[Config]:
    """Of a cluster that nobody else has."""
    with own_store(cassandra_url) as (url, name):
        yield at(tmp_path, store=url, redis=redis_url, prefix=name)


@pytest.fixture
def other_store(cassandra_url: str) -> Iterator[str]:
    """The URL of another cluster's store."""
    with own_store(cassandra_url) as (url, _):
        yield url


async def test_one_process_shares_nothing_and_has_its_file_alone(tmp_path: Path) -> None:
    config = Config(data=tmp_path)
    async with open_stores(config, incarnation="a", secret=SECRET) as stores:
        assert stores.leases is stores.presence is stores.bus is stores.ephemeral is None
        (user,) = await stores.store.create_users([User(id=0, name="ann")], [None])
        with pytest.raises(Unavailable, match="another broker is using this database"):
            async with open_stores(config, incarnation="b", secret=SECRET):
                pass
        async with open_store(config) as beside:
            assert (await beside.users_by_name(["ann"]))["ann"].id == user.id


async def test_two_nodes_share_the_store_the_leases_and_the_bus(config: Config) -> None:
    async with (
        open_stores(config, incarnation="a", secret=SECRET) as a,
        open_stores(config, incarnation="b", secret=SECRET) as b,
    ):
        (user,) = await a.store.create_users([User(id=0, name="ann")], [None])
        assert (await b.store.users_by_name(["ann"]))["ann"].id == user.id
        assert a.presence is not None
        assert b.presence is not None
        await a.presence.keep_alive("a", 60_000)
        await a.presence.update("a", here=[user.id], gone=[])
        assert await b.presence.online([user.id]) == {user.id}
        assert a.bus is not None
        assert b.bus is not None
        assert a.bus.send("b", b"a word")
        with trio.fail_after(10):
            assert await b.bus.receive() == [b"a word"]
    async with open_leases(config) as leases:
        assert len({record.owner for record in await leases.slots()}) == 1


async def test_a_node_with_another_secret_is_refused(config: Config) -> None:
    async with open_store(config, secret=SECRET):
        pass
    with pytest.raises(SecretError, match="sign with another secret"):
        async with open_stores(config, incarnation="b", secret=OTHER):
            pass
    async with open_stores(config, incarnation="a", secret=SECRET):
        pass


async def test_the_secret_of_a_stopped_cluster_is_changed_as_operations_md_says(
    config: Config,
) -> None:
    async with open_store(config, secret=SECRET):
        pass
    told = re.findall(r'cqlsh -e "(DELETE FROM parley\.agreed [^"]*)"', OPERATIONS.read_text())
    (forget,) = [cql for cql in told if SECRET_NAME in cql]
    await trio.to_thread.run_sync(run_cql, config, forget)
    async with open_store(config, secret=OTHER):
        pass
    with pytest.raises(SecretError):
        async with open_store(config, secret=SECRET):
            pass


def run_cql(config: Config, statement: str) -> None:
    """As an operator would with `cqlsh`, in this cluster's keyspace."""
    settings = parse_url(config.store.url)
    cluster = connect(settings)
    cluster.connect().execute(statement.replace("parley.", f"{settings.keyspace}."))
    cluster.shutdown()


async def test_the_first_secret_is_that_of_all_and_never_kept_itself() -> None:
    leases = MemoryLeases()
    await check_secret(leases, SECRET)
    await check_secret(leases, SECRET)
    with pytest.raises(SecretError):
        await check_secret(leases, OTHER)
    kept = await leases.agree("secret", "")
    assert SECRET.decode() not in kept


async def test_all_nodes_have_their_names_in_redis_where_the_first_has_them() -> None:
    leases = MemoryLeases()
    for _ in range(2):
        await check_names(leases, "parley", 0)
    for prefix, db in (("parley2", 0), ("parley", 1)):
        with pytest.raises(ConfigError, match=r"redis\.prefix: .*another: parley in database 0"):
            await check_names(leases, prefix, db)


async def test_two_clusters_do_not_share_a_redis_and_one_that_lost_all_is_nobodys() -> None:
    ours, theirs = MemoryLeases(), MemoryLeases()
    redis = MemoryEphemeral(trio.current_time)
    for _ in range(2):
        await check_claim(ours, redis)
    with pytest.raises(ConfigError, match="another cluster uses this Redis"):
        await check_claim(theirs, redis)
    await check_claim(ours, redis)
    await check_claim(ours, MemoryEphemeral(trio.current_time))
    await check_claim(theirs, MemoryEphemeral(trio.current_time))


async def test_a_redis_that_lost_all_is_claimed_again_by_the_cluster_that_runs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ours, theirs = MemoryLeases(), MemoryLeases()
    presence = MemoryPresence(trio.current_time)
    redis = MemoryEphemeral(trio.current_time)
    node = ClaimingPresence(presence, redis, await check_claim(ours, redis))
    assert not await node.keep_alive("a1", 60_000)
    presence.lose_all()
    redis.lose_all()
    with patch.object(redis, "claim", side_effect=Unavailable("gone again")):
        assert not await node.keep_alive("a1", 60_000)
    assert await node.keep_alive("a1", 60_000), "the claim is due all the same"
    with pytest.raises(ConfigError, match="another cluster uses this Redis"):
        await check_claim(theirs, redis)
    assert not caplog.records
    presence.lose_all()
    redis.lose_all()
    await check_claim(theirs, redis)
    assert not await node.keep_alive("a1", 60_000)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_node_whose_redis_is_not_that_of_its_cluster_is_refused(
    config: Config, other_store: str
) -> None:
    async with open_stores(config, incarnation="a", secret=SECRET):
        pass
    elsewhere = msgspec.structs.replace(config.redis, prefix=f"{config.redis.prefix}-2")
    for wrong, why in (
        (msgspec.structs.replace(config, redis=elsewhere), "have another"),
        (msgspec.structs.replace(config, store=Store(url=other_store)), "another cluster"),
    ):
        with pytest.raises(ConfigError, match=why):
            async with open_stores(wrong, incarnation="b", secret=SECRET):
                pass
    async with open_stores(config, incarnation="c", secret=SECRET):
        pass


async def test_who_only_looks_decides_nothing_for_the_others(config: Config) -> None:
    async with open_leases(config) as leases:
        assert await leases.agree(PLACE_NAME, "elsewhere") == "elsewhere"
    async with open_leases(config) as leases:
        assert await leases.nodes() == []
    with pytest.raises(UnsafeSettings, match="elsewhere"):
        async with open_store(config):
            pass


async def test_without_a_cluster_there_are_no_leases(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"store\.url"):
        async with open_leases(Config(data=tmp_path)):
            pass


@pytest.mark.parametrize(
    ("urls", "blamed"),
    [
        ({"store": "cassandra://u:hunter2@a/no-name", "redis": "redis://a"}, "store.url"),
        ({"store": "cassandra://u:hunter2@/parley", "redis": "redis://a"}, "store.url"),
        ({"store": "cassandra://a/parley", "redis": "redis://:hunter2@a:no/0"}, "redis.url"),
        ({"store": "cassandra://a/parley", "redis": "http://:hunter2@a"}, "redis.url"),
    ],
)
async def test_a_url_that_is_none_is_named_and_its_password_is_not(
    tmp_path: Path, urls: dict[str, str], blamed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        async with open_stores(at(tmp_path, **urls), incarnation="a", secret=SECRET):
            pass

    (problem,) = caught.value.problems
    assert problem.startswith(f"{blamed}: ")
    assert "hunter2" not in problem


async def test_a_cassandra_that_is_not_there_is_told_without_its_password(tmp_path: Path) -> None:
    url = f"cassandra://u:hunter2@127.0.0.1:{free_port()}/parley"
    with pytest.raises(Unavailable) as caught:
        async with open_stores(
            at(tmp_path, store=url, redis="redis://127.0.0.1"), incarnation="a", secret=SECRET
        ):
            pass
    assert "127.0.0.1" in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_a_redis_that_is_not_there_stops_the_start(config: Config) -> None:
    gone = Redis(url=f"redis://:hunter2@127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable) as caught:
        async with open_stores(
            msgspec.structs.replace(config, redis=gone), incarnation="a", secret=SECRET
        ):
            pass
    assert "hunter2" not in str(caught.value)
