"""Parley as it is, but each row is written by an INSERT of its own: what group commit is worth.

`python -m bench.baselines.inserts serve …`. The statements of a commit are sent side by side, as
many as the store's bridge lets through (512), and the commit is done when the last is answered.
"""

from __future__ import annotations

import contextlib
import runpy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from storage.cassandra import writing
from storage.cassandra.packing import Part


def each_alone(parts: Iterable[Part], replicas: Callable[[bytes], Sequence[Any]]) -> list[Any]:
    """The statements of all parts, none of them in a batch."""
    return [statement for part in parts for statement in part.statements]


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """In the block, stores of this process pack nothing."""
    before = vars(writing)["packed"]  # Where commits are packed: a move of it is to be noticed.
    vars(writing)["packed"] = each_alone
    try:
        yield
    finally:
        vars(writing)["packed"] = before


def main() -> None:
    """Be `python -m broker.cli`, but for that."""
    with alone():
        runpy.run_module("broker.cli", run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()
