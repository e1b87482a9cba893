"""The log: lines for people or JSON lines, to standard error, by the standard library.

Frames are never logged. Should a token, a hash or a password get into a message, an argument or a
traceback all the same, it is blotted out of the finished line, where nothing can slip past.
"""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

from broker.config import Log

REDACTED = "[redacted]"
_WORDS = r"(?:password|passwd|token|refresh|secret|authorization|cookie)\w*"
_SECRETS = (
    (re.compile(r"\beyJ[\w-]+(?:\.[\w-]*){1,2}"), REDACTED),
    (re.compile(r"\bpr_[\w-]{20,}"), REDACTED),
    (re.compile(r"\$argon2\w+\$[\w$=,+/-]+"), REDACTED),
    (re.compile(r"(?i)\bbearer\s+[^\s\"',]+"), f"Bearer {REDACTED}"),
    (
        # A value after `password=`, `"token": ` and the like: quoted, or up to the next space.
        re.compile(
            rf"(?i)\b({_WORDS}\\?[\"']?\s*[=:]\s*)"
            r"(?!\[redacted\])(?:b?\\?\"(?:[^\"\\]|\\.)*\\?\"|b?'(?:[^'\\]|\\.)*'|[^\s,;)}\]\"']+)"
        ),
        rf"\g<1>{REDACTED}",
    ),
)
_SENSITIVE = re.compile(rf"(?i)^{_WORDS}$")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(settings: Log, stream: TextIO | None = None) -> None:
    """Send every logger's records, from `settings.level` on, to `stream` (standard error).

    What an earlier call or a library has set up is replaced.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if settings.format == "json" else HumanLines())
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)


def redact(line: str) -> str:
    """The line without what looks like a token, a hash or a password."""
    for pattern, replacement in _SECRETS:
        line = pattern.sub(replacement, line)
    return line


class HumanLines(logging.Formatter):
    """`TIME LEVEL logger: message key=value`, one line but for tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as a line."""
        message = _escaped(record.getMessage())
        extras = "".join(f" {key}={_escaped(str(value))}" for key, value in _extras(record))
        line = f"{_time(record)} {record.levelname:<7} {record.name}: {message}{extras}"
        return redact(line + _indented(_trace(record, self)))


class JsonLines(logging.Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `message`, `trace`, and the extras."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as a JSON object."""
        fields: dict[str, Any] = {key: _plain(value) for key, value in _extras(record)}
        fields |= {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(_valid(record.getMessage())),
        }
        trace = _trace(record, self)
        if trace:
            fields["trace"] = redact(_valid(trace))
        return orjson.dumps(fields).decode()


def _extras(record: logging.LogRecord) -> list[tuple[str, Any]]:
    return [
        (key, REDACTED if _SENSITIVE.match(key) else value)
        for key, value in vars(record).items()
        if key not in _STANDARD
    ]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and abs(value) < 1 << 63:
        return value
    return redact(_valid(str(value)))


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _trace(record: logging.LogRecord, formatter: logging.Formatter) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info else ""


def _indented(trace: str) -> str:
    """An exception's text may come from a user, so no line of it may look like one of ours."""
    return "".join(f"\n  {_escaped(line)}" for line in trace.splitlines())


def _escaped(text: str) -> str:
    """Users choose names and bodies: a line break in one must not look like a line of ours."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _valid(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
