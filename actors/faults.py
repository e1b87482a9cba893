"""How failures inside become words for a client and lines in the log. Nothing secret in either."""

from __future__ import annotations

import logging
import secrets
import time

from broker.wire.errors import Code, Refusal
from storage.errors import Unavailable

log = logging.getLogger("parley.actors")

OUTAGE_LOG_PERIOD_S = 1.0
"""One line about the store in this time; the next says how many were left out."""


SENT_ELSEWHERE = Refusal(
    Code.UNAVAILABLE,
    "the conversation has moved to another node; the outcome is unknown: try again",
)


def unavailable(error: Unavailable) -> Refusal:
    """What a client is told of a store that failed: the same key is safe to send again."""
    doubt = "" if error.applied is False else "; the outcome is unknown"
    return Refusal(Code.UNAVAILABLE, f"the store is not available{doubt}: try again")


class OutageLog:
    """Says that the store is away once a period: every turn and every query may meet it."""

    def __init__(self) -> None:
        self._next = 0.0
        self._unsaid = 0

    def note(self, error: Unavailable) -> None:
        now = time.monotonic()
        if now < self._next:
            self._unsaid += 1
            return
        more = f" ({self._unsaid} more times since the last line)" if self._unsaid else ""
        log.error("the store is not available: %s%s", error, more)
        self._next = now + OUTAGE_LOG_PERIOD_S
        self._unsaid = 0


log_outage = OutageLog().note


def defect(where: str) -> Refusal:
    """Log the exception that is being handled, and refer to its line in the log."""
    reference = secrets.token_hex(4)
    log.exception("defect %s in %s", reference, where)
    return Refusal(Code.INTERNAL, f"a defect of the server, reference {reference}")


def error_reply(command_id: int | None, refusal: Refusal) -> dict[str, object]:
    """A refusal as the `error` reply."""
    reply: dict[str, object] = {"t": "error"}
    if command_id is not None:
        reply["id"] = command_id
    reply |= {"code": refusal.code, "message": refusal.message, "retry": refusal.retry}
    if refusal.field is not None:
        reply["field"] = refusal.field
    if refusal.after_ms is not None:
        reply["after_ms"] = refusal.after_ms
    return reply
