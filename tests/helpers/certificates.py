"""A certificate authority of the tests' own."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization


def certificate(folder: Path) -> tuple[Path, Path, ssl.SSLContext]:
    """Files of a certificate for localhost and its key, and a context that trusts it."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    cert, key = folder / "cert.pem", folder / "key.pem"
    for pem in issued.cert_chain_pems:
        pem.write_to_path(cert, append=True)
    issued.private_key_pem.write_to_path(key)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return cert, key, trusting


def locked(key: Path) -> Path:
    """A file beside that of `key`, with the same key encrypted."""
    plain = serialization.load_pem_private_key(key.read_bytes(), None)
    kind, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path = key.with_name("locked.pem")
    path.write_bytes(
        plain.private_bytes(kind, form, serialization.BestAvailableEncryption(b"hush-hush"))
    )
    return path
