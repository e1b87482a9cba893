"""One connection: logged in, over TLS if wanted, and never longer silent than it may be."""

from __future__ import annotations

import signal
from pathlib import Path
from time import monotonic

import pytest
import trustme

from storage.errors import Unavailable
from storage.redis.link import Link
from storage.redis.settings import parse_url
from tests.helpers.servers import Redis, free_port, redis


def link(url: str) -> Link:
    settings = parse_url(url)
    return Link(settings, settings.addresses[0])


def test_answers_come_in_order_and_of_any_size(server: Redis) -> None:
    opened = link(server.url)
    large = b"\r\n" * 2_000_000
    answers = opened.exchange([("SET", "k", large), ("GET", "k"), ("GET", "none"), ("INCR", "n")])
    assert answers == [b"OK", large, None, 1]
    assert str(opened.exchange([("LPUSH", "k", "x")])[0]).startswith("WRONGTYPE")
    opened.close()


def test_a_password_opens_and_a_wrong_one_is_not_told(tmp_path: Path) -> None:
    with redis(tmp_path, ("--requirepass", "right")) as server:
        at = f"127.0.0.1:{server.port}"
        assert link(f"redis://:right@{at}/2").exchange([("SET", "k", "v")]) == [b"OK"]
        with pytest.raises(Unavailable, match="WRONGPASS") as wrong:
            link(f"redis://:secret@{at}")
        assert "secret" not in str(wrong.value)
        assert wrong.value.applied is False
        with pytest.raises(Unavailable, match="NOAUTH"):
            link(f"redis://{at}")


def test_a_user_of_an_access_list_and_one_of_no_rights(tmp_path: Path) -> None:
    rule = ("--user", "chat", "on", ">pw", "~*", "&*", "+@all", "-flushall")
    with redis(tmp_path, rule) as server:
        opened = link(f"redis://chat:pw@127.0.0.1:{server.port}")
        assert str(opened.exchange([("FLUSHALL",)])[0]).startswith("NOPERM")


def test_tls_on_both_sides(tmp_path: Path) -> None:
    authority = trustme.CA()
    ca, cert, key = tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem"
    authority.cert_pem.write_to_path(ca)
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    port = free_port()
    options = {"tls-port": port, "tls-ca-cert-file": ca, "tls-cert-file": cert, "tls-key-file": key}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with redis(tmp_path / "redis", words):
        at = f"rediss://127.0.0.1:{port}"
        opened = link(f"{at}?ca={ca}&cert={cert}&key={key}")
        assert opened.exchange([("SET", "k", b"x" * 3_000_000), ("STRLEN", "k")])[1] == 3_000_000
        with pytest.raises(Unavailable, match="certificate"):
            link(f"{at}?cert={cert}&key={key}")
        with pytest.raises(Unavailable):
            link(f"{at}?ca={ca}")


def test_who_is_not_there_is_unavailable() -> None:
    for host in (f"127.0.0.1:{free_port()}", "a..b"):
        with pytest.raises(Unavailable) as away:
            link(f"redis://{host}")
        assert away.value.applied is False


@pytest.mark.usefixtures("impatient")
def test_a_server_that_hangs_is_given_up(server: Redis) -> None:
    opened = link(server.url)
    server.signal(signal.SIGSTOP)
    started = monotonic()
    with pytest.raises(Unavailable, match="no answer") as hung:
        opened.exchange([("SET", "k", "v")])
    assert hung.value.applied is None
    # It still accepts connections, since the kernel does that.
    with pytest.raises(Unavailable, match="no answer") as new:
        link(server.url)
    assert new.value.applied is False
    assert monotonic() - started < 3
    server.signal(signal.SIGCONT)


def test_a_server_that_hangs_up_is_noticed(server: Redis) -> None:
    opened = link(server.url)
    server.kill()
    with pytest.raises(Unavailable):
        opened.exchange([("PING",)])


def test_silence_is_no_failure_for_who_only_listens(server: Redis) -> None:
    opened = link(server.url)
    assert opened.read(0.02) == []
    assert opened.exchange([("PING",)]) == [b"PONG"]
