"""Where settings come from: defaults < one TOML file < `PARLEY_*` variables < flags.

Everything wrong is reported at once, each with its place; nothing wrong is ever ignored. What the
settings are is the matter of `broker.config`. Nothing here starts or opens what a setting names.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

import msgspec

from broker.config import CONFIG_FILE, DEFAULTS, HINTS, PORT_MAX, Config, get, shown

PREFIX = "PARLEY_"
CONFIG_VARIABLE = "PARLEY_CONFIG"
"""Names the TOML file, as `--config` does."""
OTHER_VARIABLES = frozenset(
    {
        CONFIG_VARIABLE,
        *("PARLEY_TOKEN", "PARLEY_BENCH_NATS", "PARLEY_LOGS"),
        *("PARLEY_TEST_CASSANDRA", "PARLEY_TEST_REDIS"),
    }
)
"""Variables of the same prefix that are no settings: of other subcommands and of the tests."""
CONFIG_MAX_BYTES = 1 << 20
TABLES = frozenset(key.rpartition(".")[0] for key in HINTS if "." in key)


class ConfigError(Exception):
    """The configuration cannot be used; `problems` has one line for each thing to mend."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Given(NamedTuple):
    """A value that a source gives: `place` is how its author would find it again."""

    key: str
    value: Any
    place: str
    is_text: bool
    """Whether the value is text that is yet to be read as the setting's type."""


class Loaded(NamedTuple):
    """A configuration, and for each key that a source gave, the place where it did."""

    config: Config
    origins: dict[str, str]


def load(
    *,
    flags: Iterable[tuple[str, str, str]] = (),
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Loaded:
    """Merge all sources. `flags` are (key, text, flag as the user wrote it).

    Without `file` (or `PARLEY_CONFIG`), `parley.toml` in the data directory is read if it is there.
    Raises `ConfigError`.
    """
    environ = environ or {}
    problems: list[str] = []
    if file is None and environ.get(CONFIG_VARIABLE):
        file = Path(environ[CONFIG_VARIABLE])
    above = [
        *_from_environ(environ, problems),
        *_from_flags(flags, problems),
    ]
    if file is None:
        file = _file_in_data_directory(above)
        below = _from_file(file, problems, data_is_known=True) if file else []
    else:
        below = _from_file(file, problems, data_is_known=False)
    config, origins = _merge([*below, *above], problems)
    if problems:
        raise ConfigError(problems)
    return Loaded(config, origins)


def as_toml(loaded: Loaded) -> str:
    """The whole configuration as TOML that `load` reads back, with the origin of what was given.

    Passwords in URLs are not shown: with them, it must be written anew.
    """
    lines: list[str] = []
    table = ""
    for key in HINTS:
        head, _, name = key.rpartition(".")
        if head != table:
            lines += ["", f"[{head}]"]
            table = head
        value = shown(loaded.config, key)
        line = f"{name} = {_toml_value(value)}" if value is not None else f"# {name} is not set"
        origin = loaded.origins.get(key)
        lines.append(f"{line}  # {_printable(origin)}" if origin else line)
    return "\n".join(lines) + "\n"


def _from_environ(environ: Mapping[str, str], problems: list[str]) -> list[Given]:
    given = []
    for name, value in sorted(environ.items()):
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES:
            continue
        key = name.removeprefix(PREFIX).lower().replace("__", ".")
        if key in HINTS and name == variable_of(key):
            given.append(Given(key, value, name, True))
        else:
            known = [variable_of(each) for each in HINTS]
            problems.append(f"{name}: no such setting{_guess(name, known)}")
    return given


def _from_flags(flags: Iterable[tuple[str, str, str]], problems: list[str]) -> Iterator[Given]:
    for key, value, place in flags:
        if key in HINTS:
            yield Given(key, value, place, True)
        else:
            problems.append(f"{place}: no such setting{_guess(key, HINTS)}")


def variable_of(key: str) -> str:
    """The environment variable of a key: `outbox.high_bytes` → `PARLEY_OUTBOX__HIGH_BYTES`."""
    return PREFIX + key.upper().replace(".", "__")


def _file_in_data_directory(above: list[Given]) -> Path | None:
    data = [str(each.value) for each in above if each.key == "data"]
    path = (Path(data[-1]) if data else DEFAULTS.data) / CONFIG_FILE
    return path if path.is_file() else None


def _from_file(file: Path, problems: list[str], *, data_is_known: bool) -> list[Given]:
    try:
        with file.open("rb") as stream:
            raw = stream.read(CONFIG_MAX_BYTES + 1)
        if len(raw) > CONFIG_MAX_BYTES:
            problems.append(f"{file}: larger than {CONFIG_MAX_BYTES} bytes")
            return []
        tree = tomllib.loads(raw.decode())
    except OSError as error:
        problems.append(f"{file}: {error.strerror}")
        return []
    except ValueError as error:
        problems.append(f"{file}: not TOML: {error}")
        return []
    given = []
    for key, value in _flatten(tree):
        place = f"{file}: {key}"
        if key not in HINTS:
            problems.append(f"{place}: no such setting{_guess(key, HINTS)}")
        elif key == "data" and data_is_known:
            problems.append(f"{place}: a file in the data directory cannot name another one")
        else:
            given.append(Given(key, _anchored(key, value, file), place, False))
    return given


def _flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and prefix + name in TABLES:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _anchored(key: str, value: Any, file: Path) -> Any:
    """Relative paths in a file are meant from where the file is, not from where one stands."""
    if value and isinstance(value, str) and _is_path(HINTS[key]):
        return str(file.parent / value)
    return value


def _is_path(hint: Any) -> bool:
    base = get_args(hint)[0]
    return base is Path or Path in get_args(base)


def _merge(given: list[Given], problems: list[str]) -> tuple[Config, dict[str, str]]:
    tree: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for each in given:
        try:
            value = _convert(each)
        except (msgspec.ValidationError, ValueError) as error:
            problems.append(f"{each.place}: {error}")
            continue
        *tables, name = each.key.split(".")
        node = tree
        for table in tables:
            node = node.setdefault(table, {})
        node[name] = value
        origins[each.key] = each.place
    config = msgspec.convert(tree, Config, dec_hook=_as_path)
    problems += _contradictions(config, origins)
    return config, origins


def _convert(given: Given) -> Any:
    """The value as its setting's type. Raises `ValidationError` or `ValueError`."""
    hint = HINTS[given.key]
    value = given.value
    if given.is_text:
        value.encode()  # raises UnicodeEncodeError, a ValueError, for bytes that were no UTF-8
    if given.is_text and get_origin(get_args(hint)[0]) is tuple:
        value = [item.strip() for item in value.split(",") if item.strip()]
    if _is_path(hint) and value == "":
        raise ValueError("Expected a path, got an empty string")
    return msgspec.convert(value, hint, strict=not given.is_text, dec_hook=_as_path)


def _as_path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, Path):
        return value
    if kind is Path and isinstance(value, str) and "\0" not in value:
        return Path(value)
    raise ValueError(f"Expected a {kind.__name__.lower()}, got {type(value).__name__}")


def _contradictions(config: Config, origins: dict[str, str]) -> Iterator[str]:
    """Values that are good alone and wrong together, with the places of both."""

    def named(key: str) -> str:
        return f"{origins.get(key, 'default')} ({key} = {shown(config, key)})"

    ascending = (
        ("outbox.soft_bytes", "outbox.high_bytes"),
        ("outbox.high_bytes", "outbox.hard_bytes"),
        ("limits.body_bytes", "limits.frame_bytes"),
        ("limits.frame_bytes", "outbox.hard_bytes"),
        ("tokens.access_ttl_s", "tokens.refresh_ttl_s"),
    )
    for low, high in ascending:
        if get(config, low) >= get(config, high):
            yield f"{named(low)}: must be less than {named(high)}"
    if config.http.host == config.tcp.host and config.http.port == config.tcp.port != 0:
        yield f"{named('http.port')}: must be another than {named('tcp.port')}"
    if (config.tls.cert is None) is not (config.tls.key is None):
        there, missing = ("cert", "key") if config.tls.cert else ("key", "cert")
        yield f"{named(f'tls.{there}')}: tls.{missing} is missing; TLS needs both"
    yield from (f"{named(key)}: {why}" for key, why in _unsafe(config))


def _unsafe(config: Config) -> Iterator[tuple[str, str]]:
    """Keys, and why the cluster that they would make cannot be safe, or cannot be."""
    backend = config.backend
    if backend not in ("sqlite", "cassandra"):
        yield "store.url", "must begin with sqlite:/// or cassandra://"
    elif backend == "cassandra":
        if not config.redis.url:
            why = "nodes find each other by Redis, and one cannot know that it is the only one"
            yield "store.url", f"redis.url is missing; {why}"
    else:
        if config.store.url and not re.fullmatch(r"sqlite:///[^/?#][^?#]*", config.store.url):
            yield "store.url", "must be sqlite:/// and an absolute path, as sqlite:///var/lib/x"
        if config.redis.url:
            yield "redis.url", "nothing would use it: SQLite is one process's own (see store.url)"
        if config.cluster.workers > 1:
            yield (
                "cluster.workers",
                "SQLite is one process's own: several need Cassandra (store.url)",
            )
    if config.cluster.workers > 1:
        for key in ("http.port", "tcp.port"):
            if get(config, key) == 0:
                yield key, "must be a number: several workers share their ports"
    yield from _own_ports(config)


def _own_ports(config: Config) -> Iterator[tuple[str, str]]:
    key, ports = "cluster.worker_http_port", config.worker_http_ports
    if ports and len(ports) == 1:
        yield key, "nothing would use it: with one process, http.port is its own"
    if ports and ports[-1] > PORT_MAX:
        yield key, f"the last of {len(ports)} would have {ports[-1]}, over {PORT_MAX}"
    for other in ("http.port", "tcp.port"):
        if get(config, other) in ports:
            yield key, f"{other} is one of {ports[0]} to {ports[-1]}, which the workers would have"


def _guess(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _toml_value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if isinstance(value, int):
        return str(value)
    # TOML's basic strings are JSON's, but for the one control character that JSON leaves as it is.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
