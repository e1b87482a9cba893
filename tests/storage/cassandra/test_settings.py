"""A URL says all of how a Cassandra is reached, and what is wrong with one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.cassandra.settings import PASSWORD_MAX_BYTES, parse_url


def test_a_url_says_where_and_how(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    found = parse_url(
        f"cassandra://me@a:9043,b.example:9043/Chat?dc=east&replication=3&consistency=quorum"
        f"&timeout_ms=900&password_file={secret}&tls=true&ca=/ca&cert=/cert&key=/key"
    )
    assert found.hosts == (("a", 9043), ("b.example", 9043))
    assert (found.keyspace, found.user, found.password) == ("chat", "me", "hunter2")
    assert (found.dc, found.replication) == ("east", (("east", 3),))
    assert (found.consistency, found.timeout_ms) == ("QUORUM", 900)
    assert (found.tls, found.ca, found.cert, found.key) == (True, "/ca", "/cert", "/key")


def test_what_is_not_said_has_a_safe_value() -> None:
    found = parse_url("cassandra://[::1]/chat")
    assert found.hosts == (("::1", 9042),)
    assert (found.wanted_replication, found.consistency) == ((("", 3),), "LOCAL_QUORUM")
    assert found.replication == (), "nothing is asked of a keyspace that is there"
    assert (found.user, found.tls) == ("", False)


def test_copies_are_told_by_data_centre() -> None:
    found = parse_url("cassandra://a/chat?dc=east&replication=east:3,west:2")
    assert found.replication == (("east", 3), ("west", 2))


def test_a_password_is_never_shown() -> None:
    settings = parse_url("cassandra://me:hunt%40er2@a/chat")
    assert settings.password == "hunt@er2"
    assert "hunt" not in repr(settings) + str(settings) + settings.where + f"{[settings]}"


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("redis://a/chat", "cassandra://"),
        ("cassandra:///chat", "host"),
        ("cassandra://a,,b/chat", "host"),
        ("cassandra://a:99999/chat", "port"),
        ("cassandra://a:1,b:2/chat", "port"),
        ("cassandra://a", "keyspace"),
        ("cassandra://a/1chat", "keyspace"),
        ("cassandra://a/chat;drop", "keyspace"),
        ("cassandra://a/chat?colour=red", "colour"),
        ("cassandra://a/chat?dc=x&dc=y", "twice"),
        ("cassandra://a/chat?dc=x'y", "dc"),
        ("cassandra://a/chat?replication=0", "replication"),
        ("cassandra://a/chat?replication=east:3,east:2", "replication"),
        ("cassandra://a/chat?replication=ea'st:3", "replication"),
        ("cassandra://a/chat?consistency=MAYBE", "consistency"),
        ("cassandra://a/chat?timeout_ms=soon", "timeout_ms"),
        ("cassandra://a/chat?tls=yes", "tls"),
        ("cassandra://a/chat?ca=/ca", "tls"),
        ("cassandra://a/chat?tls=true&cert=/c", "cert"),
        ("cassandra://a/chat?password_file=/nowhere/at/all", "password_file"),
        ("cassandra://me:x@a/chat?password_file=/nowhere", "password"),
        ("cassandra://:x@a/chat", "user"),
        ("cassandra://me@a/chat?password_file=/pass#word&tls=true", "%23"),
        ("cassandra://a/chat?ca=/c@a", "%40"),
    ],
)
def test_what_is_wrong_is_named(url: str, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        parse_url(url)


@pytest.mark.parametrize("content", [b"", b" \n", b"x" * (PASSWORD_MAX_BYTES + 1), b"\xff\xfe"])
def test_a_file_that_holds_no_password_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ValueError, match="password_file"):
        parse_url(f"cassandra://me@a/chat?password_file={tmp_path / 'secret'}")
