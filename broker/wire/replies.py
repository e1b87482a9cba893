"""Replies that are made often enough to deserve a struct; all others are plain maps."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType


class Sent(Struct, tag_field="t", tag="ok", gc=False):
    """The `ok` of `send`: durable at `seq`. `online` only in direct conversations."""

    id: int
    conv: str
    seq: int
    ts: int
    online: bool | UnsetType = UNSET
