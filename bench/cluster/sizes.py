"""How large the cases are: as they are quoted, and tiny for a test of the bench itself."""

from __future__ import annotations

from msgspec import Struct


class Sizes(Struct, frozen=True, kw_only=True):
    """The defaults are what the targets speak of."""

    publishers: int = 20
    in_flight: int = 50
    pairs: int = 1_000
    members: int = 2_000
    conversations: int = 1_000
    moved: int = 50
    samples: int = 200
    bucket_entries: int = 5_000
    entries: int = 1_000_000
    warm_rows: int = 200_000

    @property
    def users(self) -> int:
        """How many people take part in the largest case, and two who are in no other."""
        return max(2 * self.pairs, self.members, self.publishers + 1, 4) + 2


TINY = Sizes(
    publishers=3,
    in_flight=5,
    pairs=5,
    members=12,
    conversations=30,
    moved=5,
    samples=10,
    bucket_entries=300,
    entries=1_000,
    warm_rows=300,
)
