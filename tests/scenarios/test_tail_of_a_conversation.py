"""What everybody reads, the newest entries of a conversation in use, costs the store nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors import memory
from storage.memory import MemoryStore
from tests.broker.commands.people import say, seqs
from tests.helpers.cluster import Brokers, running_cluster

KEPT = 10
"""Entries of a conversation that stay in memory, at least; at most twice as many."""
SENT = 5 * KEPT


class CountingStore(MemoryStore):
    """Remembers which entries were asked for: conversation, the one before, and how many."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[str, int | None, int]] = []

    async def read(
        self, conv: str, *, after: int | None = None, before: int | None = None, limit: int
    ) -> list[bytes]:
        self.reads.append((conv, after, limit))
        return await super().read(conv, after=after, before=before, limit=limit)


@pytest.fixture
async def store(monkeypatch: pytest.MonkeyPatch) -> CountingStore:
    monkeypatch.setattr(memory, "RECENT_ENTRIES", KEPT)
    return CountingStore()


@pytest.fixture
async def brokers(tmp_path: Path, store: CountingStore) -> AsyncIterator[Brokers]:
    async with running_cluster(tmp_path, nodes=2, store=store) as brokers:
        yield brokers


@pytest.mark.parametrize("reader", [0, 1], ids=["at the writer's node", "at another node"])
async def test_the_tail_is_read_from_its_actor_and_only_older_pages_from_the_store(
    brokers: Brokers, store: CountingStore, reader: int
) -> None:
    writer = brokers[0]
    ann, bob = await writer.join("ann"), await brokers[reader].join("bob")
    conv = (await ann.ok("group.create", title="x", members=[bob.user]))["conv"]
    assert writer.owns(conv)
    for n in range(1, SENT):
        await say(ann, conv, f"{n}")

    page = await bob.ok("history", conv=conv, limit=KEPT)
    assert seqs(page["entries"]) == list(range(SENT - KEPT + 1, SENT + 1))
    page = await bob.ok("history", conv=conv, after=SENT - KEPT)
    assert seqs(page["entries"]) == list(range(SENT - KEPT + 1, SENT + 1))
    assert (await bob.ok("message", conv=conv, seq=SENT))["entry"]["body"] == f"{SENT - 1}"
    assert (await bob.ok("history", conv=conv, after=SENT))["entries"] == []
    assert store.reads == []

    page = await bob.ok("history", conv=conv, before=KEPT + 1, limit=KEPT)
    assert seqs(page["entries"]) == list(range(1, KEPT + 1))
    assert store.reads == [(conv, 0, KEPT)]
