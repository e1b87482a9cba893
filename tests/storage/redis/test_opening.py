"""All of it behind one door: over TLS, with a login, and closed again without a trace."""

from __future__ import annotations

import logging
import socket
import threading
from pathlib import Path
from time import monotonic

import pytest
import trio
import trustme

from storage.errors import Unavailable
from storage.redis import open_redis
from storage.redis.link import ANSWER_MAX_S
from tests.helpers.servers import Redis, free_port, redis
from tests.storage.redis.helpers import PATIENCE_S, until


async def test_over_tls_with_a_login_and_no_word_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = trustme.CA()
    ca, both = tmp_path / "ca.pem", tmp_path / "both.pem"
    authority.cert_pem.write_to_path(ca)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(both)
    port = free_port()
    options = {
        "tls-port": str(port),
        "tls-ca-cert-file": str(ca),
        "tls-cert-file": str(both),
        "tls-key-file": str(both),
        "tls-auth-clients": "no",
        "requirepass": "hush-hush",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    caplog.set_level(logging.DEBUG)
    with redis(tmp_path / "redis", words) as server:
        url = f"rediss://:hush-hush@127.0.0.1:{port}?ca={ca}"
        async with open_redis(url, inbox="a") as a:
            assert a.bus.send("a", bytes(1_000_000))
            with trio.fail_after(PATIENCE_S):
                assert await a.bus.receive() == [bytes(1_000_000)]
            await a.ping()
            server.kill()
            with pytest.raises(Unavailable) as away:
                await a.ping()
            server.start()

            async def back() -> bool:
                await a.ping()
                return a.bus.statistics().listening

            await until(back)
            closing = monotonic()
        assert monotonic() - closing < 1, "the listener does not wait for its next word"
    assert "went away" in caplog.text
    assert "hush" not in caplog.text + str(away.value)


async def test_closed_while_redis_is_away(server: Redis) -> None:
    async with open_redis(server.url, inbox="a") as a:
        server.kill()

        async def away() -> bool:
            a.bus.send("a", b"?")
            return not (a.statistics().connected or a.bus.statistics().listening)

        await until(away)
        closing = monotonic()
    assert monotonic() - closing < 1
    assert not {thread.name for thread in threading.enumerate()} & {"redis-bus", "redis-pipeline"}
    with pytest.raises(Unavailable):
        await a.ping()
    assert not a.bus.send("a", b"too late")


async def test_who_is_cancelled_does_not_wait_for_a_server_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, trio.move_on_after(PATIENCE_S) as scope:
        async with trio.open_nursery() as nursery:
            url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
            nursery.start_soon(open_redis(url, inbox="a").__aenter__)
            client, _ = await trio.to_thread.run_sync(silent.accept)
            begun = trio.current_time()
            nursery.cancel_scope.cancel()
        client.close()
    assert not scope.cancelled_caught
    assert trio.current_time() - begun < ANSWER_MAX_S / 2
