"""Where a broker is, from its URL."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

_SCHEMES = {"ws": 80, "wss": 443, "tcp": 7440, "tls": 7440}


@dataclass(frozen=True, slots=True)
class Address:
    """A broker's address. `path` is for WebSocket only."""

    websocket: bool
    secure: bool
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """From `ws://host:port/ws`, `wss://…`, `tcp://host:port` or `tls://…`.

        The path is `/ws` and the port the scheme's own (80, 443; 7440) unless given. Raises
        `ValueError`.
        """
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES:
            raise ValueError(f"{url!r} does not begin with ws://, wss://, tcp:// or tls://")
        if not parts.hostname:
            raise ValueError(f"{url!r} names no host")
        websocket = parts.scheme in ("ws", "wss")
        path = (parts.path if parts.path not in ("", "/") else "/ws") if websocket else ""
        return cls(
            websocket=websocket,
            secure=parts.scheme in ("wss", "tls"),
            host=parts.hostname,
            port=parts.port or _SCHEMES[parts.scheme],
            path=path + (f"?{parts.query}" if websocket and parts.query else ""),
        )

    @property
    def authority(self) -> str:
        """Host and port as they stand in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        scheme = ("wss" if self.secure else "ws") if self.websocket else "tcp"
        scheme = "tls" if self.secure and not self.websocket else scheme
        return f"{scheme}://{self.authority}{self.path}"
