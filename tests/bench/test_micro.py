"""The little benchmark of what a message costs: it measures what it says."""

from __future__ import annotations

import pytest

from bench import micro


@pytest.mark.parametrize("shape", micro.SHAPES, ids=lambda shape: shape.name)
async def test_a_few_turns_of_each_shape(
    shape: micro.Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(micro, "TURNS", 2)

    figures = await micro.measure(shape)

    assert figures.keys() == {"read", "turn", "flush", "all"}
    assert 0 < figures["turn"] < figures["all"]


async def test_each_turn_appends_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []

    class Counting(micro.Forgetful):
        async def commit(self, commit: micro.Commit) -> None:
            kept.append(sum(len(append.payloads) for append in commit.appends))
            await super().commit(commit)

    monkeypatch.setattr(micro, "TURNS", 3)
    monkeypatch.setattr(micro, "Forgetful", Counting)
    shape = micro.Shape("small", 10, 2, 4)

    await micro.measure(shape)

    assert kept == [1] * 10 + [10 * 2 * 4] * 3
