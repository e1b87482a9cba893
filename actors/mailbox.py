"""A bounded mailbox: put without waiting, take all at once.

It never waits and never drops: a full mailbox refuses, and whoever was refused stops reading its
client until there is room (back-pressure). Who wakes the owner is the owner's business.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from msgspec import Struct

T = TypeVar("T")


class MailboxStatistics(Struct, frozen=True):
    waiting: int
    limit: int
    refused: int


class Mailbox(Generic[T]):
    """`items`, `limit` and `refused` are public for the one place that puts once per message."""

    __slots__ = ("items", "limit", "refused")

    def __init__(self, limit: int) -> None:
        self.items: list[T] = []
        self.limit = limit
        self.refused = 0

    def __len__(self) -> int:
        return len(self.items)

    def put(self, item: T) -> bool:
        """Add at the end; False if the mailbox is full, and nothing is kept."""
        if len(self.items) >= self.limit:
            self.refused += 1
            return False
        self.items.append(item)
        return True

    def put_back(self, items: list[T]) -> None:
        """Return items that were taken before to the front, in order; the limit was met then."""
        self.items[:0] = items

    def take(self) -> list[T]:
        """Everything that waits, in order."""
        items = self.items
        self.items = []
        return items

    def statistics(self) -> MailboxStatistics:
        return MailboxStatistics(len(self.items), self.limit, self.refused)
