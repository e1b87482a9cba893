"""Lists in replies: what of a list fits one frame, and the marks with which a client asks for more.

Items are encoded once, here, so that their size is known and not guessed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec import Raw

from broker.wire.errors import Code, Refusal
from broker.wire.limits import MAX_ID

if TYPE_CHECKING:
    from actors.connection import Connection

REPLY_OVERHEAD_BYTES = 512
"""What a reply has around its list."""
SEPARATOR_BYTES = 1
"""Between two items of a JSON list."""


class Room:
    """The room for items in one reply of a connection. The first item always fits."""

    def __init__(self, connection: Connection) -> None:
        self._encode = connection.wire.codec.encode
        self._left = connection.node.limits.frame_bytes - REPLY_OVERHEAD_BYTES
        self._empty = True

    def take(self, item: object) -> Raw | None:
        """The item, encoded to be put into the reply; None if it does not fit any more."""
        data = self._encode(item)
        size = len(data) + SEPARATOR_BYTES
        if size > self._left and not self._empty:
            return None
        self._left -= size
        self._empty = False
        return Raw(data)

    def fill(self, items: Iterable[object]) -> list[Raw]:
        """As many of the items, from the first on, as fit."""
        taken: list[Raw] = []
        for item in items:
            raw = self.take(item)
            if raw is None:
                break
            taken.append(raw)
        return taken

    def reserve(self, size: int) -> None:
        """Keep bytes for what surrounds items."""
        self._left -= size


def id_mark(mark: str | None) -> int:
    """A mark that is the last id of the page before; 0 without one."""
    if mark is None:
        return 0
    if mark.isascii() and mark.isdecimal() and len(mark) <= len(str(MAX_ID)):
        return min(int(mark), MAX_ID)
    raise bad_mark("after")


def bad_mark(field: str) -> Refusal:
    """A mark that no answer of ours can have given."""
    return Refusal(Code.BAD_REQUEST, f"`{field}` is not a mark from an earlier answer", field=field)
