"""A Cassandra that wants a login: the right one opens it, a wrong one is told and not shown."""

from __future__ import annotations

import msgspec
import pytest

from storage.cassandra import CassandraSettings, open_cassandra, schema
from storage.errors import Unavailable


async def test_the_right_login_opens_the_store(guarded: CassandraSettings) -> None:
    await schema.apply(guarded)
    async with open_cassandra(guarded) as store:
        await store.ping()


@pytest.mark.parametrize(("user", "password"), [("cassandra", "hunter2"), ("", "")])
async def test_a_wrong_login_is_told_with_the_place_and_without_the_password(
    guarded: CassandraSettings, user: str, password: str, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = msgspec.structs.replace(guarded, user=user, password=password)
    with pytest.raises(Unavailable) as caught:
        async with open_cassandra(wrong):
            pass
    assert guarded.where in str(caught.value)
    assert "hunter2" not in str(caught.value) + caplog.text
