"""Which rows of a log count: the rules alone, on rows as crashes and late writers leave them."""

from __future__ import annotations

import re

import pytest

from storage.cassandra import schema
from storage.cassandra.log import HeadRow, LogRow, winning
from storage.cassandra.pages import payloads
from storage.cassandra.statements import CQL


def tables() -> str:
    return "\n".join(statement for step in schema.steps() for statement in step)


def rows(*pairs: tuple[int, int]) -> list[LogRow]:
    return [LogRow(seq, version, None, None) for seq, version in pairs]


@pytest.mark.parametrize(
    ("stored", "run"),
    [
        ([], []),
        ([(6, 10), (7, 11)], [(6, 10), (7, 11)]),
        ([(7, 11), (6, 10)], [(6, 10), (7, 11)]),
        ([(6, 10), (8, 12)], [(6, 10)]),
        ([(7, 11)], []),
        ([(6, 9)], []),
        ([(6, 10), (6, 20), (7, 10)], [(6, 20)]),
        ([(6, 10), (7, 10), (7, 20), (8, 10)], [(6, 10), (7, 20)]),
        ([(6, 9), (6, 10), (7, 9)], [(6, 10)]),
        ([(5, 99), (6, 10)], [(6, 10)]),
    ],
    ids=[
        "nothing",
        "two commits",
        "in any order",
        "a hole",
        "no beginning",
        "below the checkpoint",
        "void behind the one that took its place",
        "void behind later ones",
        "late, of two kinds",
        "settled before",
    ],
)
def test_what_lies_beyond_a_checkpoint(
    stored: list[tuple[int, int]], run: list[tuple[int, int]]
) -> None:
    """The checkpoint is at seq 5 and of version 10."""
    assert [(row.seq, row.version) for row in winning(rows(*stored), 5, 10)] == run


def test_a_page_has_of_each_seq_the_last_and_ends_at_a_hole() -> None:
    stored = [(3, 7, b"c"), (2, 9, b"new"), (2, 7, b"old"), (5, 7, b"e")]
    found = payloads([stored[:2], stored[2:]], 2, HeadRow(9))
    assert found == {2: b"new", 3: b"c"}


def test_a_page_leaves_out_what_is_beyond_and_below_the_checkpoint() -> None:
    stored = [(1, 5, b"a"), (2, 5, b"late"), (3, 12, b"c")]
    assert payloads([stored], 1, HeadRow(1, 0, 10)) == {1: b"a"}
    assert payloads([stored], 1, HeadRow(3, 0, 10)) == {1: b"a", 2: b"late", 3: b"c"}


def test_a_page_has_nothing_that_is_void_behind_what_took_its_place() -> None:
    """The checkpoint is one that was read before that was written."""
    stored = [(2, 5, b"b"), (3, 9, b"new"), (3, 7, b"late"), (4, 7, b"late"), (5, 9, b"e")]
    assert payloads([stored], 2, HeadRow(2, 0, 4)) == {2: b"b", 3: b"new"}


def test_who_decides_which_rows_count_reads_all_that_is_in_them() -> None:
    """A read repairs what it asks for and nothing else: a row of a commit in doubt, which is on one
    replica, would come to the others without its payload, and count."""
    (table,) = re.findall(r"TABLE IF NOT EXISTS timeline \((.*?)PRIMARY KEY", tables(), re.DOTALL)
    columns = set(re.findall(r"^    (\w+) ", table, re.MULTILINE)) - {"conv", "bucket"}
    read = CQL["beyond"].removeprefix("SELECT ").partition(" FROM")[0]
    assert set(read.split(", ")) == columns
