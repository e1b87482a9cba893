"""Hypercorn's HTTP engine on sockets that are handed over: the one file that knows its insides.

`TCPServer`, `ASGIWrapper` and `WorkerContext` are no documented API, hence the pin in
pyproject.toml and tests/api/test_server.py. No lifespan is run: the application has none.
"""

from __future__ import annotations

import logging
from typing import Any

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext

from actors.connection import HttpHandover
from api.stream import HandedOver

IDLE_TIMEOUT_S = 15
"""For the next request on a kept-alive connection, from its first byte to the end of its head."""
HEAD_MAX_BYTES = 16 * 1024
HTTP2_STREAMS_MAX = 8


class HttpServer:
    """Serves an ASGI application. `serve` is what `Node.http` wants."""

    def __init__(self, app: Any) -> None:
        self._app = ASGIWrapper(app)
        self._config = _config()
        self._context = WorkerContext(None)

    async def serve(self, handover: HttpHandover) -> None:
        """Answer requests on this socket until either side ends it, or it is idle for too long."""
        stream: Any = HandedOver(handover)
        await TCPServer(self._app, self._config, self._context, {}, stream).run()

    async def close(self) -> None:
        """End idle connections now, and others after the response under way."""
        await self._context.terminated.set()


def _config() -> Config:
    config = Config()
    config.keep_alive_timeout = IDLE_TIMEOUT_S
    config.h11_max_incomplete_size = HEAD_MAX_BYTES
    config.h2_max_concurrent_streams = HTTP2_STREAMS_MAX
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = logging.getLogger("parley.http")
    return config
