"""The baseline of group commit: all rows are there, and none of them shares a request."""

from __future__ import annotations

from bench.baselines import inserts
from storage.cassandra import packing, writing
from storage.cassandra.packing import Part


def test_each_row_travels_alone() -> None:
    parts = [Part(["a1", "a2"], 10), Part(["b1"], 5)]
    assert inserts.each_alone(parts, lambda key: ["a node"]) == ["a1", "a2", "b1"]


def test_what_the_baseline_replaces_is_what_commits_are_packed_with() -> None:
    assert vars(writing)["packed"] is packing.packed
