"""What every directory agrees on about changing an account. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from storage.records import User

CHANGEABLE_FIELDS = frozenset(User.__struct_fields__) - {"id", "name"}
"""The fields of `User` that `update_user` may set."""


def check_changeable(fields: Iterable[str]) -> None:
    """Raise `ValueError` if one of these is not a field of `User` that may be changed."""
    wrong = set(fields) - CHANGEABLE_FIELDS
    if wrong:
        raise ValueError(f"not changeable fields of a user: {', '.join(sorted(wrong))}")
