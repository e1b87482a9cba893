"""What a user may be called. Whether a name is free is the store's business, not this file's."""

from __future__ import annotations

from broker.wire.errors import Code, Refusal
from broker.wire.limits import NAME_MAX_CHARS
from storage.interfaces import name_key


def check_name(name: str) -> None:
    """Raise `Refusal(bad_request)`, field `name`, for a name that nobody could read or type.

    Any script is welcome. Refused are names that are too long, that begin or end with a space, and
    that hold control characters, line breaks or other invisible ones.
    """
    if not 1 <= len(name) <= NAME_MAX_CHARS:
        raise _refused(f"a name has 1 to {NAME_MAX_CHARS} characters")
    if name != name.strip() or not name.isprintable() or not name_key(name).strip():
        raise _refused("a name has no control or invisible characters and no spaces at its ends")


def _refused(message: str) -> Refusal:
    return Refusal(Code.BAD_REQUEST, message, field="name")
