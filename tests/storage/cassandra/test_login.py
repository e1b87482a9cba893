"""A Cassandra that wants a login: the right one opens it, a wrong one is told and not shown."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from storage.cassandra import CassandraSettings, open_cassandra, schema
from storage.cassandra.connection import connect
from storage.cassandra.settings import parse_url
from storage.errors import Unavailable
from tests.helpers.servers import CassandraNode, free_port

NEEDS_LOGIN = "\nauthenticator:\n  class_name: PasswordAuthenticator\n"


class Guarded(CassandraNode):
    """It is ready once its first account is there."""

    def is_ready(self) -> bool:
        try:
            settings = parse_url(f"cassandra://cassandra:cassandra@{self.host}:{self.port}/chat")
            cluster = connect(settings)
            try:
                return bool(cluster.connect().execute("SELECT key FROM system.local").one())
            finally:
                cluster.shutdown()
        except Exception:  # noqa: BLE001 - whatever it is, it is not ready
            return False


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CassandraSettings]:
    folder = tmp_path_factory.mktemp("guarded")
    node = Guarded(folder, "127.0.0.1", ["127.0.0.1"], (free_port(), free_port()))
    yaml = folder / "cassandra.yaml"
    yaml.write_text(yaml.read_text() + NEEDS_LOGIN)
    secret = folder / "secret"
    secret.write_text("cassandra\n")
    try:
        node.start()
        yield parse_url(
            f"cassandra://cassandra@{node.host}:{node.port}/chat"
            f"?replication=1&password_file={secret}"
        )
    finally:
        node.kill()


async def test_the_right_login_opens_the_store(settings: CassandraSettings) -> None:
    await schema.apply(settings)
    async with open_cassandra(settings) as store:
        await store.ping()


@pytest.mark.parametrize(("user", "password"), [("cassandra", "hunter2"), ("", "")])
async def test_a_wrong_login_is_told_with_the_place_and_without_the_password(
    settings: CassandraSettings, user: str, password: str, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = msgspec.structs.replace(settings, user=user, password=password)
    with pytest.raises(Unavailable) as caught:
        async with open_cassandra(wrong):
            pass
    assert settings.where in str(caught.value)
    assert "hunter2" not in str(caught.value) + caplog.text
