"""A URL says where Redis is; what cannot be is refused in words that give no password away."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from storage.redis.settings import Login, parse_url
from tests.helpers.certificates import certificate, locked


def test_one_server() -> None:
    plain = parse_url("redis://host")
    assert (plain.kind, plain.addresses, plain.db, plain.tls) == (
        "single",
        (("host", 6379),),
        0,
        None,
    )
    full = parse_url("redis://ana:s%40%2Fcret@[::1]:7000/3")
    assert full.addresses == (("::1", 7000),)
    assert full.login == Login("ana", "s@/cret")
    assert full.db == 3
    assert parse_url("redis://:secret@host").login == Login("", "secret")


def test_sentinels_name_a_service() -> None:
    settings = parse_url("redis+sentinel://:pw@a,b:7001/chat/2?sentinel_username=s")
    assert settings.kind == "sentinel"
    assert settings.addresses == (("a", 26379), ("b", 7001))
    assert (settings.service, settings.db, settings.login.password) == ("chat", 2, "pw")
    assert settings.sentinel_login.username == "s"


def test_a_cluster_has_many_nodes() -> None:
    settings = parse_url("redis+cluster://a:7000,b")
    assert settings.kind == "cluster"
    assert settings.addresses == (("a", 7000), ("b", 6379))


def test_passwords_come_from_files(tmp_path: Path) -> None:
    file, other = tmp_path / "password", tmp_path / "other"
    file.write_text("from file\n")
    other.write_text("for sentinels")
    settings = parse_url(
        f"redis+sentinel://ana@a/chat?password_file={file}&sentinel_password_file={other}"
    )
    assert settings.login == Login("ana", "from file")
    assert settings.sentinel_login == Login("", "for sentinels")


def test_tls_needs_the_other_scheme(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(ca)
    assert parse_url(f"rediss://host?ca={ca}").tls is not None
    assert parse_url("rediss+cluster://host").tls is not None
    with pytest.raises(ValueError, match="rediss"):
        parse_url(f"redis://host?ca={ca}")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://host", "begins with"),
        ("redis+ring://host", "begins with"),
        ("redis://", "no host"),
        ("redis://:secret@", "no host"),
        ("redis://:secret@a,b", "more than one"),
        ("redis://:secret@host:port", "host that cannot be read"),
        ("redis://:secret@host:99999", "host that cannot be read"),
        ("redis://:secret@[::1", "cannot be read"),
        ("redis://:secret@host/chat", "number"),
        ("redis://:secret@host/1/2", "number"),
        ("redis+cluster://:secret@host/1", "no numbered databases"),
        ("redis+sentinel://:secret@host", "name of the service"),
        ("redis://:secret@host?passwordfile=x", "passwordfile: no such option"),
        ("redis://:secret@host?sentinel_username=x", "no such option"),
        ("redis://:secret@host?password_file=x", "which one"),
        ("redis://host?password_file=missing", "cannot be read"),
        ("redis://:secret@host?ca=x&ca=y", "twice"),
        ("rediss://:secret@host?ca=missing", "TLS file"),
        ("rediss://:secret@host?key=missing", "without its cert"),
    ],
)
def test_what_cannot_be_is_refused_without_the_password(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        parse_url(url)
    assert "secret" not in str(refused.value)


def test_settings_can_be_shown() -> None:
    shown = repr(parse_url("redis+sentinel://ana:secret@host/chat"))
    assert "secret" not in shown
    assert "ana" in shown


def test_an_empty_password_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ValueError, match="empty"):
        parse_url(f"redis://host?password_file={tmp_path / 'empty'}")


def test_a_key_with_a_passphrase_is_refused_and_not_asked_for(tmp_path: Path) -> None:
    cert, key, _ = certificate(tmp_path)
    assert parse_url(f"rediss://host?cert={cert}&key={key}").tls is not None
    with pytest.raises(ValueError, match="encrypted"):
        parse_url(f"rediss://host?cert={cert}&key={locked(key)}")
