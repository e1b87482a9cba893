"""What a store may raise. Drivers' own errors end at the backend's seam and become one of these."""

from __future__ import annotations


class StoreError(Exception):
    """Base of all that a store raises on purpose."""


class Unavailable(StoreError):
    """The store could not do it now. `applied` says what is known of a write:

    False: certainly nothing was written. None: nobody knows; read back before going on.
    """

    def __init__(self, message: str, *, applied: bool | None = False) -> None:
        super().__init__(message)
        self.applied = applied


class NameTaken(StoreError):
    """A user of that name (without regard to case) exists."""


class NoSuchUser(StoreError):
    """No user has that id or name."""


class SchemaTooNew(StoreError):
    """The data was written by a newer version of Parley; this one must not touch it."""


class UnsafeSettings(StoreError):
    """With these settings the store could lose what was acknowledged, or let two nodes both win."""
