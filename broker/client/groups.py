"""Errors out of a nursery as they were raised, where there is only one to tell of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio


@contextmanager
def unwrapped() -> Iterator[None]:
    """Around a nursery: a group that holds one error (cancellations aside) becomes that error.

    So `async with connect(...)` raises what its block raised, as if there were no nursery in it.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        _, errors = group.split(trio.Cancelled)
        if errors is None or len(errors.exceptions) != 1:
            raise
        only = errors.exceptions[0]
        # Raised bare, its own cause and context stay, and the group is no part of them.
        context = only.__context__
        try:
            raise only
        finally:
            only.__context__ = context
            del only, group


@contextmanager
def one_of(kind: type[Exception]) -> Iterator[None]:
    """Around a nursery: a group of nothing but errors of this kind, however deep (cancellations
    aside), becomes one of them.

    Tasks that work on one connection fail together; any of their errors tells why.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        _, errors = group.split(trio.Cancelled)
        if errors is None or errors.split(kind)[1] is not None:
            raise
        only: BaseException = errors
        while isinstance(only, BaseExceptionGroup):
            only = only.exceptions[0]
        raise only from None
