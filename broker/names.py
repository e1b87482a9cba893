"""What users and groups may be called. Whether a name is free is the store's business."""

from __future__ import annotations

import unicodedata

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


def check_label(text: str, field: str) -> None:
    """Raise `Refusal(bad_request)` for a title or nickname that breaks the line it is shown in.

    Anything else goes: emoji and many scripts need characters that are invisible by themselves.
    Whether it may be empty is the caller's business.
    """
    if text and (not text.strip() or any(unicodedata.category(c) == "Cc" for c in text)):
        raise Refusal(
            Code.BAD_REQUEST, f"`{field}` is blank or has control characters", field=field
        )
