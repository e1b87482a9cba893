"""The way to the master that Sentinels name, also when it has become another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from storage.errors import Unavailable
from storage.redis import open_redis
from tests.helpers.servers import PROGRAMS, Redis, Server, free_port, redis
from tests.storage.redis.helpers import ask, until

SERVICE = "chat"


class Sentinel(Redis):
    """Watches over a master, and is enough to agree with itself."""

    def __init__(self, folder: Path, master: Redis) -> None:
        super().__init__(folder, free_port())
        file = folder / "sentinel.conf"
        file.write_text(
            f"port {self.port}\nbind 127.0.0.1\nrequirepass watch\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\n"
            f"sentinel failover-timeout {SERVICE} 3000\n"
        )
        program = PROGRAMS / "bin" / "redis-server"
        Server.__init__(self, "Sentinel", [program, file, "--sentinel"], folder)


@dataclass
class Watched:
    master: Redis
    standby: Redis
    sentinel: Sentinel
    url: str


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Watched]:
    with (
        redis(tmp_path / "master") as master,
        redis(
            tmp_path / "standby",
            ("--replicaof", f"127.0.0.1 {master.port}", "--repl-diskless-sync-delay", "0"),
        ) as standby,
    ):
        sentinel = Sentinel(tmp_path / "sentinel", master)
        password = tmp_path / "password"
        password.write_text("watch\n")
        nobody = free_port()
        url = (
            f"redis+sentinel://127.0.0.1:{nobody},127.0.0.1:{sentinel.port}/{SERVICE}"
            f"?sentinel_password_file={password}"
        )
        try:
            yield Watched(master, standby, sentinel, url)
        finally:
            sentinel.kill()


@pytest.fixture
async def watched(three: Watched) -> Watched:
    """The standby has what the master has, and the Sentinel knows both."""

    async def synced() -> bool:
        return ask(three.standby.url, "ROLE")[3] == b"connected"

    await until(synced)
    three.sentinel.start()

    async def known() -> bool:
        at = f"redis://:watch@127.0.0.1:{three.sentinel.port}"
        return len(ask(at, "SENTINEL", "REPLICAS", SERVICE)) == 1

    await until(known)
    return three


async def test_when_the_master_dies_the_standby_is_found(watched: Watched) -> None:
    async with open_redis(watched.url, inbox="a") as a:
        await a.ping()
        assert ask(watched.master.url, "EXISTS", "parley:ping") == 1
        assert not await a.presence.keep_alive("a", 60_000)
        await a.presence.update("a", here=[1], gone=[])
        watched.master.kill()

        async def written_again() -> bool:
            assert not await a.presence.keep_alive("a", 60_000)
            await a.presence.update("a", here=[1], gone=[])
            return await a.presence.online([1]) == {1}

        await until(written_again)
        assert ask(watched.standby.url, "HLEN", "parley:u:1") == 1

        async def heard() -> bool:
            a.bus.send("a", b"hello")
            with trio.move_on_after(0.1):
                return b"hello" in await a.bus.receive()
            return False

        await until(heard)


async def test_a_master_that_became_a_standby_is_left(watched: Watched) -> None:
    async with open_redis(watched.url, inbox="a") as a:
        await a.ping()
        at = f"redis://:watch@127.0.0.1:{watched.sentinel.port}"

        async def agreed_to() -> bool:
            return ask(at, "SENTINEL", "FAILOVER", SERVICE) == b"OK"

        await until(agreed_to)

        async def moved() -> bool:
            await a.ping()
            return ask(watched.standby.url, "ROLE")[0] == b"master" and bool(
                ask(watched.standby.url, "EXISTS", "parley:ping")
            )

        await until(moved)


async def test_what_no_sentinel_knows_is_unavailable(three: Watched) -> None:
    three.sentinel.start()
    with pytest.raises(Unavailable, match="knows no service 'mail'"):
        async with open_redis(three.url.replace(f"/{SERVICE}", "/mail"), inbox="a"):
            pass
    with pytest.raises(Unavailable, match="NOAUTH"):
        async with open_redis(three.url.partition("?")[0], inbox="a"):
            pass


async def test_a_standby_is_not_believed_to_be_the_master(three: Watched) -> None:
    """A Sentinel may name one for a moment, when it has not yet heard of a failover."""

    async def stands_by() -> bool:
        return ask(three.standby.url, "ROLE")[0] == b"slave"

    await until(stands_by)
    confused = Sentinel(three.sentinel.folder / "confused", three.standby)
    confused.start()
    try:
        url = three.url.replace(f":{three.sentinel.port}/", f":{confused.port}/")
        with pytest.raises(Unavailable, match="is no master"):
            async with open_redis(url, inbox="a"):
                pass
    finally:
        confused.kill()


async def test_a_master_that_was_demoted_counts_as_away(server: Redis) -> None:
    async with open_redis(server.url, inbox="a") as a:
        await a.ping()
        ask(server.url, "REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(Unavailable, match="READONLY"):
            await a.ping()
        assert a.statistics().interruptions == 1
        ask(server.url, "REPLICAOF", "NO", "ONE")

        async def back() -> bool:
            await a.ping()
            return True

        await until(back)


async def test_a_server_that_is_away_at_the_start_is_told(server: Redis) -> None:
    server.kill()
    with pytest.raises(Unavailable, match=str(server.port)):
        async with open_redis(server.url, inbox="a"):
            pass


async def test_a_prefix_has_no_braces(server: Redis) -> None:
    with pytest.raises(ValueError, match="braces"):
        async with open_redis(server.url, inbox="a", prefix="{x}"):
            pass
