"""How a Cassandra is reached, read from one URL. No I/O but the file with a password.

`cassandra://[user[:password]@]host[:port],host…/keyspace?option=…` with the options

- `dc`: the data centre whose nodes are asked, the same for all processes of a cluster; where it is
  missing, that of the first host that is reached;
- `replication`: copies of each row in `dc` (in every data centre where there is no `dc`), as `3`,
  or by name, as `east:3,west:3`; `1` is for trials on one node. A keyspace that is made without has
  3, and one that is there is left as it is;
- `consistency` (`LOCAL_QUORUM`), `timeout_ms` (5000);
- `password_file`; `tls=true`, `ca`, `cert`, `key` (files).
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from msgspec import Struct

from storage import urls

DEFAULT_PORT = 9042
DEFAULT_TIMEOUT_MS = 5_000
DEFAULT_COPIES = 3
TIMEOUT_MAX_MS = 600_000
"""A longer time-out is refused: whoever waits that long has given up."""
PASSWORD_MAX_BYTES = 4_096
"""A larger password file is refused."""

MAJORITIES = ("LOCAL_QUORUM", "QUORUM", "EACH_QUORUM", "ALL")
"""A read asks one of the copies at least that a write is on."""
CONSISTENCIES = (*MAJORITIES, "LOCAL_ONE", "ONE")
"""The last two are for one copy of each row; with more, no store opens."""
OPTIONS = frozenset(
    {"dc", "replication", "consistency", "timeout_ms", "password_file", "tls", "ca", "cert", "key"}
)
_KEYSPACE = re.compile(r"[A-Za-z]\w{0,47}", re.ASCII)
_DATACENTRE = re.compile(r"[\w.-]+", re.ASCII)


class CassandraSettings(Struct, frozen=True, kw_only=True):
    """Where a cluster is and how it is used. Never shows its password."""

    hosts: tuple[tuple[str, int], ...]
    keyspace: str
    user: str = ""
    password: str = ""
    dc: str = ""
    replication: tuple[tuple[str, int], ...] = ()
    """(data centre, copies), as far as it is told; the name "" is every data centre."""
    consistency: str = "LOCAL_QUORUM"
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    tls: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""

    def __repr__(self) -> str:
        return f"<{self.where}>"

    @property
    def wanted_replication(self) -> tuple[tuple[str, int], ...]:
        """Of a keyspace that is to be made."""
        return self.replication or ((self.dc, DEFAULT_COPIES),)

    @property
    def is_majority(self) -> bool:
        """Whether reads see what was written, however many copies there are."""
        return self.consistency in MAJORITIES

    @property
    def is_local(self) -> bool:
        """Whether one data centre alone decides."""
        return self.consistency in ("LOCAL_QUORUM", "LOCAL_ONE", "ONE")

    @property
    def where(self) -> str:
        """The cluster and keyspace, for messages."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"cassandra://{hosts}/{self.keyspace}"


def parse_url(url: str) -> CassandraSettings:
    """Read a URL. Raises `ValueError`, which names the part that is wrong and never a password."""
    parts = urls.split(url)
    if parts.scheme != "cassandra":
        raise ValueError("store: the URL of a Cassandra begins with cassandra://")
    login, _, where = parts.netloc.rpartition("@")
    user, has_password, password = login.partition(":")
    options = urls.options(parts.query, OPTIONS)
    if has_password and "password_file" in options:
        raise ValueError("password: is in the URL and in password_file too")
    secret = unquote(password) if has_password else _password(options.get("password_file", ""))
    if secret and not user:
        raise ValueError("user: is missing where there is a password")
    settings = CassandraSettings(
        hosts=_hosts(where),
        keyspace=_keyspace(parts.path),
        user=unquote(user),
        password=secret,
        dc=_named("dc", options.get("dc", "")),
        replication=_replication(options.get("replication", ""), options.get("dc", "")),
        consistency=_consistency(options.get("consistency", "LOCAL_QUORUM")),
        timeout_ms=_number("timeout_ms", options.get("timeout_ms", "5000"), TIMEOUT_MAX_MS),
        tls=_boolean("tls", options.get("tls", "false")),
        ca=options.get("ca", ""),
        cert=options.get("cert", ""),
        key=options.get("key", ""),
    )
    if not settings.tls and (settings.ca or settings.cert or settings.key):
        raise ValueError("tls: must be true where ca, cert or key is given")
    if bool(settings.cert) != bool(settings.key):
        raise ValueError("cert and key: one is of no use without the other")
    return settings


def _hosts(text: str) -> tuple[tuple[str, int], ...]:
    hosts = []
    for part in text.split(","):
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::(\d{1,5}))?", part, re.ASCII)
        if not match:
            raise ValueError(f"host: {part!r} is not host or host:port")
        port = _number("port", match[2] or str(DEFAULT_PORT), 65_535)
        hosts.append((match[1].strip("[]"), port))
    if len({port for _, port in hosts}) > 1:
        raise ValueError("port: all hosts of a cluster have the same")
    return tuple(hosts)


def _keyspace(path: str) -> str:
    name = path.removeprefix("/")
    if not _KEYSPACE.fullmatch(name):
        raise ValueError(
            f"keyspace: {name!r} is not a letter and up to 47 letters, digits, underscores"
        )
    return name.lower()


def _replication(text: str, dc: str) -> tuple[tuple[str, int], ...]:
    if not text:
        return ()
    if text.isdecimal():
        return ((dc, _number("replication", text, 100)),)
    found: dict[str, int] = {}
    for part in text.split(","):
        name, colon, number = part.partition(":")
        if not colon or not name or name in found:
            raise ValueError(f"replication: {part!r} is not NAME:COPIES")
        found[_named("replication", name)] = _number("replication", number, 100)
    return tuple(found.items())


def _password(path: str) -> str:
    if not path:
        return ""
    try:
        with Path(path).open("rb") as file:
            data = file.read(PASSWORD_MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"password_file: {path} cannot be read: {error.strerror}") from error
    if len(data) > PASSWORD_MAX_BYTES or not data.strip():
        raise ValueError(f"password_file: {path} is empty or no password")
    try:
        return data.decode().strip()
    except UnicodeDecodeError:
        raise ValueError(f"password_file: {path} is not UTF-8") from None


def _named(part: str, text: str) -> str:
    if text and not _DATACENTRE.fullmatch(text):
        raise ValueError(f"{part}: {text!r} is no name of a data centre")
    return text


def _consistency(text: str) -> str:
    if text.upper() not in CONSISTENCIES:
        raise ValueError(f"consistency: {text!r} is none of {', '.join(CONSISTENCIES)}")
    return text.upper()


def _number(part: str, text: str, most: int) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise ValueError(f"{part}: {text!r} is no number from 1 to {most}")
    return int(text)


def _boolean(part: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{part}: {text!r} is neither true nor false")
    return text == "true"
