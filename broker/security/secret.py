"""Secrets of the data directory, a file each, made on first use: the one that signs session tokens,
and the one by which the operator is known.

Whoever has it can be anybody, so it is never logged, printed or taken from a variable, and a file
that others could have read is refused instead of being repaired.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

SECRET_FILE = "secret"
OPERATOR_FILE = "operator"
"""Holds the token by which /api/monitor knows the operator."""
SECRET_BYTES = 32
"""Entropy of a new secret; also the least length of the file."""
SECRET_MAX_BYTES = 4096

_VOID = {SECRET_FILE: "all sessions then end", OPERATOR_FILE: "the old one is then void"}


class SecretError(Exception):
    """There is no usable secret; the message says what to do about it."""


def load_secret(data: Path, *, create: bool = True, file: str = SECRET_FILE) -> bytes:
    """A secret of a data directory. With `create`, both are made if they are missing.

    Raises `SecretError` if it is missing, unreadable, too short, or open to other users.
    """
    path = data / file
    try:
        if create and not path.exists():
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
            _create(path)
        return _read(path)
    except FileNotFoundError as error:
        raise SecretError(f"{path} does not exist: {data} is no data directory yet") from error
    except OSError as error:
        raise SecretError(f"{path}: {error.strerror}") from error


def _create(path: Path) -> None:
    """Write a whole file beside, then give it its name: no crash leaves half a secret behind."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(secrets.token_urlsafe(SECRET_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return  # another process was faster, and its secret is the one
    finally:
        draft.unlink()
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes:
    # Without O_NONBLOCK, opening a pipe of that name would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise SecretError(f"{path} is not a file")
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise SecretError(
                f"{path} is open to other users (mode {mode:03o}): run `chmod 600 {path}`, or "
                f"delete it if somebody may have read it ({_VOID[path.name]})"
            )
        secret = file.read(SECRET_MAX_BYTES + 1).strip()
    if not SECRET_BYTES <= len(secret) <= SECRET_MAX_BYTES:
        raise SecretError(
            f"{path} must hold {SECRET_BYTES} to {SECRET_MAX_BYTES} bytes and holds {len(secret)}: "
            f"delete it to have a new one made ({_VOID[path.name]})"
        )
    return secret
