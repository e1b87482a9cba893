"""Looking up many rows by their keys, in as few queries as is good."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from storage.cassandra.bridge import Bridge
from storage.cassandra.connection import READ

KEYS_PER_QUERY = 50
"""Keys in one `IN`; more of them are more queries at once."""


async def by_keys(
    bridge: Bridge, bind: Callable[..., Any], name: str, keys: Collection[Any]
) -> list[tuple[Any, ...]]:
    """The rows with any of these keys, in any order."""
    wanted = list(keys)
    asked = [
        bind(name, wanted[start : start + KEYS_PER_QUERY])
        for start in range(0, len(wanted), KEYS_PER_QUERY)
    ]
    if not asked:
        return []
    return [row for rows in await bridge.all(asked, READ) for row in rows]
