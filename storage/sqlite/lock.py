"""One broker per database: a lock on a file beside it, which the system drops with its process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.errors import Unavailable


@contextmanager
def only_broker(path: Path) -> Iterator[None]:
    """Hold `<path>.lock`. Raises `Unavailable` if another process holds it, `OSError`."""
    lock = path.with_name(path.name + ".lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(f"{path}: another broker is using this database") from error
        yield
    finally:
        # The file stays: removing it could take it from under a broker that has just opened it.
        os.close(descriptor)
