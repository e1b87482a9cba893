"""Parley as it is, but each row is written by an INSERT of its own: what group commit is worth.

`python -m bench.baselines.inserts serve …`. The statements of a commit are sent side by side, as
many as the store's bridge lets through (512), and the commit is done when the last is answered.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from storage.cassandra import writing
from storage.cassandra.packing import Part


def each_alone(parts: Iterable[Part], replicas: Callable[[bytes], Sequence[Any]]) -> list[Any]:
    """The statements of all parts, none of them in a batch."""
    return [statement for part in parts for statement in part.statements]


def main() -> None:
    """Replace the packing of commits, then be `python -m broker.cli`."""
    assert "packed" in vars(writing), "commits are packed elsewhere now"
    vars(writing)["packed"] = each_alone
    runpy.run_module("broker.cli", run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()
