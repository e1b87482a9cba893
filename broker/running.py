"""What a started broker hands to whoever started it: where it listens, and how to stop it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that one may listen on but not connect to, and where to connect instead."""


@dataclass(frozen=True, slots=True)
class Address:
    """A socket that is bound; `port` is the real one, also where 0 was asked for."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def reachable(address: Address) -> Address:
    """Where a client on the same machine finds what listens on `address`."""
    return Address(EVERYWHERE.get(address.host, address.host), address.port)


@dataclass(frozen=True, slots=True)
class Running:
    """The value that `broker.app.run` gives to `task_status.started`.

    `stop` begins to drain and returns at once; `run` returns when the drain is over. It may be
    called again without harm. To stop without a drain, cancel `run`.
    """

    http: Address
    tcp: Address
    stop: Callable[[], None]
