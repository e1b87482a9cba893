"""TLS to a Cassandra, both ways: who is not who they should be is told, and no secret is."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest
import trustme

from storage.cassandra import CassandraSettings, open_cassandra, schema
from storage.errors import Unavailable
from storage.records import User
from tests.helpers.certificates import certificate, locked


async def refusal(settings: CassandraSettings, caplog: pytest.LogCaptureFixture) -> str:
    """What is told where the store does not open."""
    caplog.set_level(logging.DEBUG)
    with pytest.raises(Unavailable) as caught:
        async with open_cassandra(settings):
            pass
    told = str(caught.value)
    assert told.startswith(f"{settings.where}: ")
    assert "hush" not in told + caplog.text
    return told


@pytest.fixture
def hushed(guarded: CassandraSettings) -> CassandraSettings:
    """As `guarded`, with a password that must not be found in any word."""
    return msgspec.structs.replace(guarded, password="hush-hush")


async def test_rows_of_many_records_of_tls_come_back_whole(guarded: CassandraSettings) -> None:
    await schema.apply(guarded)
    names = [f"{number:03}{'x' * 2_000}" for number in range(100)]
    async with open_cassandra(guarded) as store:
        made = await store.create_users(
            [User(id=0, name=name) for name in names], [None] * len(names)
        )
        found = await store.users([user.id for user in made])
    assert [found[user.id].name for user in made] == names


async def test_a_server_of_another_authority_is_refused(
    hushed: CassandraSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    told = await refusal(msgspec.structs.replace(hushed, ca=str(other)), caplog)
    assert "certificate verify failed" in told


async def test_without_a_certificate_of_ours_nobody_lets_us_in(
    hushed: CassandraSettings, caplog: pytest.LogCaptureFixture
) -> None:
    await refusal(msgspec.structs.replace(hushed, cert="", key=""), caplog)


async def test_without_tls_nobody_lets_us_in(
    hushed: CassandraSettings, caplog: pytest.LogCaptureFixture
) -> None:
    await refusal(msgspec.structs.replace(hushed, tls=False, ca="", cert="", key=""), caplog)


async def test_a_file_that_cannot_be_used_is_named(
    hushed: CassandraSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    missing = str(tmp_path / "missing.pem")
    assert missing in await refusal(msgspec.structs.replace(hushed, ca=missing), caplog)
    mixed_up = msgspec.structs.replace(hushed, cert=hushed.key)
    assert hushed.key in await refusal(mixed_up, caplog)


async def test_a_key_with_a_passphrase_is_refused_and_not_asked_for(
    hushed: CassandraSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key, _ = certificate(tmp_path)
    encrypted = msgspec.structs.replace(hushed, cert=str(cert), key=str(locked(key)))
    told = await refusal(encrypted, caplog)
    assert "encrypted" in told
