"""A process to be killed: commits to three conversations at once for ever, telling each commit."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

import trio

from storage.records import Commit
from storage.sqlite import open_sqlite
from tests.conformance.making import append

CONVS = ("g/1", "g/2", "d/1/2")


async def main(path: Path) -> None:
    async with open_sqlite(path, exclusive=True) as store:
        seq = (await store.heads(CONVS))[CONVS[0]].seq
        while True:
            size = 1 + seq % 3
            await store.commit(
                Commit(appends=[append(conv, seq + 1, seq + size) for conv in CONVS])
            )
            seq += size
            print(seq, flush=True)


if __name__ == "__main__":
    with patch("storage.sqlite.pieces.MERGE_ROWS", 20):
        trio.run(main, Path(sys.argv[1]))
