"""Every setting of the broker: its public name, type, default, bounds and meaning, in one place.

A key is the path of a field, as `outbox.high_bytes`. The unit is the last word of the name. Where
values come from is the matter of `broker.config_sources`; nothing here reads a file or a variable.
The secret that signs sessions is no setting but a file of its own in the data directory; the URLs
of stores may hold a password, and are only ever shown by way of `shown`.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints
from urllib.parse import unquote

from msgspec import Meta, Struct, field

from broker.wire.limits import Limits

Host = Annotated[str, Meta(min_length=1, max_length=253)]
PORT_MAX = 65_535
Port = Annotated[int, Meta(ge=0, le=PORT_MAX)]
Amount = Annotated[int, Meta(ge=1, le=10_000_000)]
Rate = Annotated[int, Meta(ge=0, le=10_000_000)]
Milliseconds = Annotated[int, Meta(ge=1, le=366 * 86_400_000)]
Seconds = Annotated[int, Meta(ge=1, le=10 * 366 * 86_400)]
Bytes = Annotated[int, Meta(ge=1024, le=1 << 30)]
Url = Annotated[str, Meta(max_length=4096)]
Name = Annotated[str, Meta(max_length=200, pattern=r"^[A-Za-z0-9._-]*$")]

DATABASE_FILE = "parley.sqlite"
CONFIG_FILE = "parley.toml"


class Http(Struct, frozen=True):
    """The port of HTTP and WebSocket."""

    host: Annotated[Host, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="Port of HTTP and `/ws`; 0 takes a free one.")] = 7400
    allowed_origins: Annotated[
        tuple[str, ...],
        Meta(description="Origins whose pages may open a WebSocket; none named: any may."),
    ] = ()


class Tcp(Struct, frozen=True):
    """The port of length-prefixed msgpack."""

    host: Annotated[Host, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="Port of TCP clients; 0 takes a free one.")] = 7440


class Tls(Struct, frozen=True):
    """With both set, every port speaks TLS."""

    cert: Annotated[
        Path | None, Meta(description="Certificate chain (PEM); with `tls.key`, TLS on all ports.")
    ] = None
    key: Annotated[Path | None, Meta(description="The certificate's private key (PEM).")] = None


class Connections(Struct, frozen=True):
    """How many connections, and how long they may be silent."""

    max: Annotated[
        Amount, Meta(description="Connections at once; beyond, new ones are sent away.")
    ] = 100_000
    heartbeat_ms: Annotated[
        Milliseconds, Meta(description="A connection silent for two heartbeats is closed.")
    ] = 30_000
    opening_timeout_ms: Annotated[
        Milliseconds, Meta(description="Time for the handshake and the first command.")
    ] = 10_000
    drain_ms: Annotated[
        Milliseconds, Meta(description="Time over which a stopping broker spreads its goodbyes.")
    ] = 5_000


class Outbox(Struct, frozen=True):
    """What happens to a client that reads slower than it is written to."""

    soft_bytes: Annotated[
        Bytes, Meta(description="Unsent bytes above which typing and presence are dropped.")
    ] = 256 * 1024
    high_bytes: Annotated[
        Bytes, Meta(description="Unsent bytes above which conversations turn to `behind`.")
    ] = 1024 * 1024
    hard_bytes: Annotated[
        Bytes, Meta(description="Unsent bytes above which the connection is cut.")
    ] = 4 * 1024 * 1024
    stall_ms: Annotated[
        Milliseconds, Meta(description="A connection that drains nothing for so long is cut.")
    ] = 20_000


class Conversations(Struct, frozen=True):
    """The life and the rules of a conversation."""

    passivate_ms: Annotated[
        Milliseconds, Meta(description="An idle conversation leaves memory after this time.")
    ] = 300_000
    edit_window_ms: Annotated[
        Milliseconds, Meta(description="How long one may edit one's own message.")
    ] = 86_400_000
    recall_window_ms: Annotated[
        Milliseconds, Meta(description="How long one may recall one's own message.")
    ] = 120_000
    read_receipts_max_members: Annotated[
        Rate, Meta(description="Larger groups are not told who has read how far.")
    ] = 200


class Presence(Struct, frozen=True):
    """Who is online."""

    coalesce_ms: Annotated[
        Milliseconds, Meta(description="Presence changes are gathered for so long.")
    ] = 1_000


class Tokens(Struct, frozen=True):
    """How long a login lasts."""

    access_ttl_s: Annotated[Seconds, Meta(description="Life of a session token.")] = 3_600
    refresh_ttl_s: Annotated[Seconds, Meta(description="Life of a refresh token.")] = 30 * 86_400


class Passwords(Struct, frozen=True):
    """The cost of a password (argon2id), and how many are worked on at once."""

    parallel: Annotated[
        int, Meta(ge=1, le=64, description="Passwords hashed at once, each in a thread.")
    ] = 2
    queue: Annotated[
        int, Meta(ge=0, le=10_000, description="Passwords that may wait; beyond: `unavailable`.")
    ] = 64
    memory_kib: Annotated[
        int, Meta(ge=8, le=4 << 20, description="Argon2 memory of one hash, in KiB.")
    ] = 19_456
    passes: Annotated[int, Meta(ge=1, le=100, description="Argon2 passes over that memory.")] = 2


class Rates(Struct, frozen=True):
    """What one user or address may do in a time; 0 is no limit."""

    sends_per_s: Annotated[
        Rate, Meta(description="Entries that one user may append per second; 0: no limit.")
    ] = 0
    sends_burst: Annotated[
        Amount, Meta(description="Entries that a user may append at once after a rest.")
    ] = 100
    logins_per_min: Annotated[
        Rate, Meta(description="Password logins per minute and address; 0: no limit.")
    ] = 120
    registers_per_min: Annotated[
        Rate, Meta(description="Registrations per minute and address; 0: no limit.")
    ] = 60


class Store(Struct, frozen=True):
    """Where everything is kept."""

    url: Annotated[
        Url,
        Meta(
            description="`sqlite:///PATH` or `cassandra://HOST,HOST/KEYSPACE?…`; empty: SQLite in "
            "the data directory."
        ),
    ] = ""


class Redis(Struct, frozen=True):
    """What carries words between nodes, and who is where; wanted with Cassandra only."""

    url: Annotated[
        Url,
        Meta(description="`redis://`, `rediss://`, `redis+sentinel://` or `redis+cluster://`."),
    ] = ""
    prefix: Annotated[
        Name, Meta(min_length=1, description="Begins all names in Redis; each cluster has its own.")
    ] = "parley"


class Cluster(Struct, frozen=True):
    """This node among others."""

    node: Annotated[Name, Meta(description="Name of this node; empty: the host's name.")] = ""
    workers: Annotated[
        int,
        Meta(ge=1, le=256, description="Processes on this machine, each a node; with Cassandra."),
    ] = 1
    worker_http_port: Annotated[
        Port,
        Meta(
            description="HTTP of the first worker alone, to watch it; the others have the ports "
            "that follow. 0: none.",
        ),
    ] = 0
    lease_ms: Annotated[
        int,
        Meta(
            ge=1_000,
            le=600_000,
            description="A node silent for so long has lost its conversations.",
        ),
    ] = 10_000


class Log(Struct, frozen=True):
    """What is written to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="The least severe level that is written."),
    ] = "info"
    format: Annotated[
        Literal["human", "json"], Meta(description="Lines for people or JSON lines.")
    ] = "human"


class Config(Struct, frozen=True):
    """The effective configuration of one broker."""

    data: Annotated[
        Path, Meta(description="Directory of the database and the signing secret; made if missing.")
    ] = Path("parley-data")
    http: Http = field(default_factory=Http)
    tcp: Tcp = field(default_factory=Tcp)
    tls: Tls = field(default_factory=Tls)
    limits: Limits = field(default_factory=Limits)
    connections: Connections = field(default_factory=Connections)
    outbox: Outbox = field(default_factory=Outbox)
    conversations: Conversations = field(default_factory=Conversations)
    presence: Presence = field(default_factory=Presence)
    tokens: Tokens = field(default_factory=Tokens)
    passwords: Passwords = field(default_factory=Passwords)
    rates: Rates = field(default_factory=Rates)
    store: Store = field(default_factory=Store)
    redis: Redis = field(default_factory=Redis)
    cluster: Cluster = field(default_factory=Cluster)
    log: Log = field(default_factory=Log)

    @property
    def backend(self) -> str:
        """The scheme of the store's URL: `sqlite` or `cassandra`."""
        return self.store.url.partition("://")[0] or "sqlite"

    @property
    def database(self) -> Path:
        """The embedded store's file."""
        if self.store.url and self.backend == "sqlite":
            return Path(unquote(self.store.url.removeprefix("sqlite://")))
        return self.data / DATABASE_FILE

    @property
    def worker_http_ports(self) -> range:
        """Each worker's own port, if they have any."""
        first = self.cluster.worker_http_port
        return range(first, first + self.cluster.workers if first else 0)

    @property
    def node_name(self) -> str:
        """What this node is called among others."""
        return self.cluster.node or socket.gethostname()


class Setting(NamedTuple):
    """One key: `type` in words with its bounds, `default` as it stands in `Config`."""

    key: str
    type: str
    default: Any
    meaning: str


def describe() -> list[Setting]:
    """Every key in the order of `Config`: the table of docs/operations.md."""
    return [
        Setting(key, _type_in_words(hint), get(DEFAULTS, key), _meaning(hint))
        for key, hint in HINTS.items()
    ]


def get(config: Config, key: str) -> Any:
    """The value of a dotted key. Raises `AttributeError` for an unknown one."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def shown(config: Config, key: str) -> Any:
    """The value of a dotted key as anybody may see it: without the password of a URL."""
    value = get(config, key)
    if key not in URLS:
        return value
    return _PASSWORD_IN_QUERY.sub(r"\1***", _PASSWORD.sub(r"\1***@", value))


def _leaves(struct: type[Struct], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, hint in get_type_hints(struct, include_extras=True).items():
        if isinstance(hint, type) and issubclass(hint, Struct):
            yield from _leaves(hint, f"{prefix}{name}.")
        else:
            yield prefix + name, hint


def _metas(hint: Any) -> list[Meta]:
    return [meta for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, Meta)]


def _meaning(hint: Any) -> str:
    return next(meta.description for meta in _metas(hint) if meta.description)


def _type_in_words(hint: Any) -> str:
    base = get_args(hint)[0]
    if base is int:
        low = max(meta.ge for meta in _metas(hint) if meta.ge is not None)
        high = min(meta.le for meta in _metas(hint) if meta.le is not None)
        return f"integer, {low} to {high}"
    if get_origin(base) is Literal:
        return " or ".join(f'"{choice}"' for choice in get_args(base))
    if get_origin(base) is tuple:
        return "list of strings"
    return "path" if base is Path or set(get_args(base)) == {Path, NoneType} else "string"


URLS = frozenset({"store.url", "redis.url"})
_PASSWORD = re.compile(r"^((?:(?:sqlite|cassandra|rediss?(?:\+\w+)?)://)?+[^:]*:).*@", re.DOTALL)
"""Up to the last @, whatever is in it; and from the first colon of all where no known scheme is."""
_PASSWORD_IN_QUERY = re.compile(r"([?&]password=)[^&#]*", re.IGNORECASE)
DEFAULTS = Config()
HINTS = dict(_leaves(Config))
"""The type of every dotted key, for those who convert values."""
