"""Where Redis is and how to get in, read from one URL. Never connects, and never shows a password.

- ``redis://[user[:password]@]host[:port][/db]``: one server
- ``redis+sentinel://…@host[:port],host[:port]/service[/db]``: the master that Sentinels name
- ``redis+cluster://…@host[:port],host[:port]``: a Redis Cluster (7.0 or later), found by any node

``rediss`` in the place of ``redis`` is TLS, also to Sentinels. After ``?``: ``password_file``,
``ca``, ``cert`` and ``key`` (files, PEM), and for Sentinels that want a login of their own
``sentinel_username`` and ``sentinel_password_file``. What is special in a URL is %-encoded.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from storage import urls
from storage.tls import load_own

REDIS_PORT = 6379
SENTINEL_PORT = 26379

Address = tuple[str, int]
Kind = Literal["single", "sentinel", "cluster"]

_KINDS: dict[str, Kind] = {"": "single", "sentinel": "sentinel", "cluster": "cluster"}
FILES = frozenset({"password_file", "ca", "cert", "key"})
OF_SENTINELS = frozenset({"sentinel_username", "sentinel_password_file"})
_PATTERN = "redis:// or rediss://, with +sentinel or +cluster before the colon where it is one"


@dataclass(frozen=True)
class Login:
    """Who we are to a server. Without a password, nobody."""

    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class RedisSettings:
    """What a URL says; `addresses` are the Sentinels', or some of the cluster's nodes."""

    kind: Kind
    addresses: tuple[Address, ...]
    login: Login = Login()
    db: int = 0
    service: str = ""
    sentinel_login: Login = Login()
    tls: ssl.SSLContext | None = field(default=None, repr=False)


def parse_url(url: str) -> RedisSettings:
    """Read a URL and the files that it names. Raises `ValueError`, which tells no password."""
    parts = urls.split(url)
    scheme, _, kind_name = parts.scheme.partition("+")
    if scheme not in ("redis", "rediss") or kind_name not in _KINDS:
        raise ValueError(f"the URL of Redis begins with {_PATTERN}")
    kind = _KINDS[kind_name]
    options = urls.options(parts.query, FILES | OF_SENTINELS if kind == "sentinel" else FILES)
    login, hosts = _login(parts.netloc, options)
    service, db = _path(parts, kind)
    return RedisSettings(
        kind=kind,
        addresses=_addresses(hosts, kind),
        login=login,
        db=db,
        service=service,
        sentinel_login=Login(
            options.get("sentinel_username", ""), _secret(options, "sentinel_password_file")
        ),
        tls=_tls(options, wanted=scheme == "rediss"),
    )


def _login(netloc: str, options: dict[str, str]) -> tuple[Login, str]:
    user_info, _, hosts = netloc.rpartition("@")
    username, _, password = user_info.partition(":")
    if password and "password_file" in options:
        raise ValueError("the URL of Redis has a password and a password_file: which one?")
    return Login(unquote(username), unquote(password) or _secret(options, "password_file")), hosts


def _secret(options: dict[str, str], name: str) -> str:
    if name not in options:
        return ""
    try:
        secret = Path(options[name]).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} of Redis cannot be read: {error}") from None
    if not secret:
        raise ValueError(f"{name} of Redis is empty: {options[name]}")
    return secret


def _path(parts: SplitResult, kind: Kind) -> tuple[str, int]:
    """The service and the number of the database."""
    names = [unquote(name) for name in parts.path.split("/") if name]
    service = names.pop(0) if kind == "sentinel" and names else ""
    if kind == "sentinel" and not service:
        raise ValueError("the URL of Redis Sentinel needs the name of the service after a slash")
    if not names:
        return service, 0
    if kind == "cluster":
        raise ValueError("Redis Cluster has no numbered databases: leave out the path")
    if len(names) > 1 or not names[0].isascii() or not names[0].isdigit():
        raise ValueError("the number of the Redis database is a number")
    return service, int(names[0])


def _addresses(hosts: str, kind: Kind) -> tuple[Address, ...]:
    default = SENTINEL_PORT if kind == "sentinel" else REDIS_PORT
    addresses = tuple(_address(host, default) for host in hosts.split(",") if host)
    if not addresses:
        raise ValueError("the URL of Redis names no host")
    if len(addresses) > 1 and kind == "single":
        raise ValueError("more than one Redis is redis+sentinel:// or redis+cluster://")
    return addresses


def _address(text: str, default: int) -> Address:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise ValueError(f"the URL of Redis has a host that cannot be read: {text}")
    return host, default if port is None else port


def _tls(options: dict[str, str], *, wanted: bool) -> ssl.SSLContext | None:
    if not wanted:
        if given := options.keys() & {"ca", "cert", "key"}:
            raise ValueError(f"{', '.join(sorted(given))} is for rediss://")
        return None
    if "key" in options and "cert" not in options:
        raise ValueError("a key for Redis without its cert")
    try:
        context = ssl.create_default_context(cafile=options.get("ca"))
        if "cert" in options:
            load_own(context, options["cert"], options.get("key"))
    except (OSError, ValueError) as error:
        raise ValueError(f"a TLS file for Redis cannot be used: {error}") from None
    return context
