"""A certificate of our own, for any context of TLS."""

from __future__ import annotations

import ssl
from pathlib import Path


def load_own(context: ssl.SSLContext, cert: str | Path, key: str | Path | None) -> None:
    """Show this certificate from now on; without `key`, its file holds the key too.

    Raises `OSError` for files that cannot be used, `ValueError` for a key that is encrypted.
    """
    context.load_cert_chain(cert, key, _no_passphrase)


def _no_passphrase() -> str:
    # Without this, `ssl` asks the terminal and waits for ever.
    raise ValueError("its key is encrypted")
