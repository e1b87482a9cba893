"""Looking up many rows by their keys, in as few queries as is good."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from storage.cassandra.bridge import Bridge
from storage.cassandra.connection import READ

KEYS_PER_QUERY = 50
"""Keys in one `IN`; more of them are more queries at once."""


def asking(bind: Callable[..., Any], name: str, keys: Collection[Any]) -> list[Any]:
    """The statements for the rows with any of these keys; none where there are no keys."""
    wanted = list(keys)
    return [
        bind(name, wanted[start : start + KEYS_PER_QUERY])
        for start in range(0, len(wanted), KEYS_PER_QUERY)
    ]


async def by_keys(
    bridge: Bridge, bind: Callable[..., Any], name: str, keys: Collection[Any]
) -> list[tuple[Any, ...]]:
    """The rows with any of these keys, in any order. Without keys it does not wait."""
    asked = asking(bind, name, keys)
    if not asked:
        return []
    return [row for rows in await bridge.all(asked, READ) for row in rows]
