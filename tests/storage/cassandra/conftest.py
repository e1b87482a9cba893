"""A Cassandra that lets nobody in without a certificate and a password."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from storage.cassandra.connection import connect
from storage.cassandra.settings import CassandraSettings, parse_url
from tests.helpers.servers import CassandraNode, free_port

GUARDS = """
authenticator:
  class_name: PasswordAuthenticator
client_encryption_options:
  enabled: true
  optional: false
  require_client_auth: true
  ssl_context_factory:
    class_name: org.apache.cassandra.security.PEMBasedSslContextFactory
  keystore: {both}
  truststore: {ca}
"""


class Guarded(CassandraNode):
    """It is ready once its first account is there."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "127.0.0.1", ["127.0.0.1"], (free_port(), free_port()))
        authority = trustme.CA()
        ca, both, cert = folder / "ca.pem", folder / "both.pem", folder / "cert.pem"
        key, secret = folder / "key.pem", folder / "secret"
        authority.cert_pem.write_to_path(ca)
        both.write_bytes(_with_key(authority.issue_cert(self.host)))
        client = authority.issue_cert("a.node.of.parley")
        client.cert_chain_pems[0].write_to_path(cert)
        client.private_key_pem.write_to_path(key)
        secret.write_text("cassandra\n")
        yaml = folder / "cassandra.yaml"
        yaml.write_text(yaml.read_text() + GUARDS.format(both=both, ca=ca))
        self.settings = parse_url(
            f"cassandra://cassandra@{self.host}:{self.port}/chat?replication=1"
            f"&password_file={secret}&tls=true&ca={ca}&cert={cert}&key={key}"
        )

    def is_ready(self) -> bool:
        try:
            cluster = connect(self.settings)
            try:
                return bool(cluster.connect().execute("SELECT key FROM system.local").one())
            finally:
                cluster.shutdown()
        except Exception:  # noqa: BLE001 - whatever it is, it is not ready
            return False


def _with_key(issued: Any) -> bytes:
    """A certificate and its key in one file, the key as Cassandra reads it (PKCS#8)."""
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    kind, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    chain: bytes = issued.cert_chain_pems[0].bytes()
    return chain + key.private_bytes(kind, form, serialization.NoEncryption())


@pytest.fixture(scope="package")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CassandraSettings]:
    """How to get into it; nothing is in it yet."""
    node = Guarded(tmp_path_factory.mktemp("guarded"))
    try:
        node.start()
        yield node.settings
    finally:
        node.kill()
