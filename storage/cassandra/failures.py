"""The seam at which the driver's errors become ours. No I/O."""

from __future__ import annotations

from cassandra import (
    AuthenticationFailed,
    DriverException,
    RequestValidationException,
    UnresolvableContactPoints,
)
from cassandra import Unavailable as TooFewReplicas
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionException
from cassandra.pool import NoConnectionsAvailable
from cassandra.protocol import (
    ErrorMessage,
    IsBootstrappingErrorMessage,
    OverloadedErrorMessage,
)

from storage.errors import Unavailable

DRIVER_ERRORS = (
    DriverException,
    NoHostAvailable,
    ErrorMessage,
    ConnectionException,
    NoConnectionsAvailable,
    UnresolvableContactPoints,
    OSError,
)
_REFUSED = (
    TooFewReplicas,
    RequestValidationException,
    OverloadedErrorMessage,
    IsBootstrappingErrorMessage,
    NoConnectionsAvailable,
    AuthenticationFailed,
)
"""What is answered before anything is written."""


def translated(error: BaseException, *, tried: int = 1) -> BaseException:
    """`Unavailable` for an error of the driver, after `tried` nodes were asked; others as they are.

    `applied` is False only where nothing can have been written: an earlier node that was asked may
    have done it before its answer was lost.
    """
    if not isinstance(error, DRIVER_ERRORS):
        return error
    found = Unavailable(f"Cassandra: {_text(error)}", applied=_applied(error, tried))
    found.__cause__ = error
    return found


def _applied(error: BaseException, tried: int) -> bool | None:
    if isinstance(error, NoHostAvailable):
        if nowhere(error):
            return False
        return False if all(_never_sent(each) for each in error.errors.values()) else None
    return False if tried <= 1 and isinstance(error, _REFUSED) else None


def _never_sent(error: BaseException) -> bool:
    # A node that is known to be down is told by the very class; what was under way when a
    # connection was lost, by one that is derived from it.
    return isinstance(error, _REFUSED) or type(error) is ConnectionException


def nowhere(error: BaseException) -> bool:
    """Whether there is no node at all that could be asked: then the driver lists only our hosts."""
    return isinstance(error, NoHostAvailable) and not isinstance(error.errors, dict)


def _text(error: BaseException) -> str:
    if nowhere(error):
        return str(error.args[0])
    if isinstance(error, NoHostAvailable) and error.errors:
        reasons = {f"{host}: {each}" for host, each in error.errors.items()}
        return f"no node could do it ({'; '.join(sorted(reasons))})"
    return str(error) or type(error).__name__
