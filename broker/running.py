"""What a started broker hands to whoever started it: where it listens, and how to stop it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """A socket that is bound; `port` is the real one, also where 0 was asked for."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Running:
    """The value that `broker.app.run` gives to `task_status.started`.

    `stop` begins to drain and returns at once; `run` returns when the drain is over. It may be
    called again without harm. To stop without a drain, cancel `run`.
    """

    http: Address
    tcp: Address
    stop: Callable[[], None]
