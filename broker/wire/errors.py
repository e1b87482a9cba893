"""What can go wrong on the wire, and what a client should do next.

The codes of errors and of goodbyes are tables here and in docs/protocol.md; a test holds the two
together. This module decides nothing and does no I/O: it only names outcomes.
"""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """Why a command was refused (the `code` of an `error` reply)."""

    BAD_FRAME = "bad_frame"
    BAD_REQUEST = "bad_request"
    UNKNOWN_COMMAND = "unknown_command"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    BLOCKED = "blocked"
    MUTED = "muted"
    TOO_LARGE = "too_large"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


RETRYABLE = frozenset({Code.RATE_LIMITED, Code.UNAVAILABLE, Code.INTERNAL})
"""The same command may be sent again as it is, after `after_ms` where one is given."""


class ByeCode(StrEnum):
    """Why the server ends a connection (the `code` of its last frame)."""

    DRAINING = "draining"
    SLOW_CONSUMER = "slow_consumer"
    REPLACED = "replaced"
    SESSION_REVOKED = "session_revoked"
    BAD_FRAME = "bad_frame"
    IDLE = "idle"
    AUTH_TIMEOUT = "auth_timeout"
    TOO_MANY_CONNECTIONS = "too_many_connections"


CLOSE_STATUS: dict[ByeCode, int] = {
    ByeCode.DRAINING: 4001,
    ByeCode.SLOW_CONSUMER: 4002,
    ByeCode.REPLACED: 4003,
    ByeCode.SESSION_REVOKED: 4004,
    ByeCode.BAD_FRAME: 4005,
    ByeCode.IDLE: 4006,
    ByeCode.AUTH_TIMEOUT: 4007,
    ByeCode.TOO_MANY_CONNECTIONS: 4008,
}
"""The WebSocket close status that goes with each goodbye."""

RECONNECT = frozenset(
    {
        ByeCode.DRAINING,
        ByeCode.SLOW_CONSUMER,
        ByeCode.IDLE,
        ByeCode.AUTH_TIMEOUT,
        ByeCode.TOO_MANY_CONNECTIONS,
    }
)
"""Goodbyes after which the same client may simply connect again."""


class Refusal(Exception):
    """A command is answered with an `error` reply; the connection goes on.

    `field` names the one field to blame (dotted, as `to.user`), `after_ms` is the wait in
    milliseconds after which a retry makes sense, where it is known.
    """

    def __init__(
        self, code: Code, message: str, *, field: str | None = None, after_ms: int | None = None
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.field = field
        self.after_ms = after_ms

    @property
    def retry(self) -> bool:
        """Whether sending the same command again can help."""
        return self.code in RETRYABLE or (self.code is Code.MUTED and self.after_ms is not None)

    def __str__(self) -> str:
        where = f" (field {self.field})" if self.field else ""
        return f"{self.code}: {self.message}{where}"


class FrameError(Exception):
    """The byte stream is no longer a sequence of frames; the connection must end.

    `code` is `bad_frame` or `too_large`; the message says what was wrong and at which byte.
    """

    def __init__(self, message: str, code: Code = Code.BAD_FRAME) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
