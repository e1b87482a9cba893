"""One who tries passwords at every node of a cluster gets no more tries than at one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.errors import Unavailable
from tests.helpers.cluster import Brokers, Member, running_cluster

A_MINUTE = 3
"""Few enough that none comes back while a test runs."""
RETURNS_MS = 60_000 // A_MINUTE


@pytest.fixture
async def brokers(tmp_path: Path) -> AsyncIterator[Brokers]:
    async with running_cluster(
        tmp_path, nodes=2, rates__logins_per_min=A_MINUTE, rates__registers_per_min=A_MINUTE
    ) as brokers:
        yield brokers


async def guess(member: Member) -> str:
    """Try a password; the code of the refusal."""
    peer = await member.tcp()
    error = await peer.error("login", name="nobody", password="no such password")
    await peer.aclose()
    if error["code"] == "rate_limited":
        assert RETURNS_MS - 5_000 < error["after_ms"] <= RETURNS_MS
    return str(error["code"])


async def register(member: Member, name: str) -> str:
    """Make an account; what the reply says."""
    peer = await member.tcp()
    reply = await peer.ask("register", name=name, password="long enough for all")
    await peer.aclose()
    return str(reply.get("code", reply["t"]))


async def test_logins_at_one_node_count_at_the_other(brokers: Brokers) -> None:
    a, b = brokers.members
    assert [await guess(member) for member in (a, b, a)] == ["unauthenticated"] * 3
    assert [await guess(member) for member in (b, a)] == ["rate_limited"] * 2


async def test_registrations_at_one_node_count_at_the_other_and_are_no_logins(
    brokers: Brokers,
) -> None:
    a, b = brokers.members
    told = [await register(member, f"new-{n}") for n, member in enumerate((a, b, b, a, b))]
    assert told == ["ok"] * 3 + ["rate_limited"] * 2
    assert await guess(a) == "unauthenticated"


async def test_while_redis_is_away_each_node_counts_alone_and_then_both_together_again(
    brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = brokers.members
    assert await guess(a) == await guess(b) == "unauthenticated"

    async def away(what: str, who: str, *, per_minute: int) -> int:
        raise Unavailable("Redis is away", applied=False)

    with monkeypatch.context() as outage:
        outage.setattr(brokers.ephemeral, "wait_ms", away)
        for member in (a, b):
            told = [await guess(member) for _ in range(A_MINUTE + 1)]
            assert told == ["unauthenticated"] * A_MINUTE + ["rate_limited"]

    told = [await guess(member) for member in (a, b)]
    assert told == ["unauthenticated", "rate_limited"], "one was left of what they share"
