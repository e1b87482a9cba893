"""What this is, for those who come with a browser: the front page, the description, and `/ws`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from api.answers import Json
from broker.wire.errors import Code
from broker.wire.opening import SUBPROTOCOLS

UPGRADE = "/ws speaks WebSocket: open it with an upgrade request"
FIRST = "an upgrade must be the first request of its connection: open a new one for it"


class About:
    """`description` is the OpenAPI document."""

    def __init__(self, description: dict[str, Any]) -> None:
        self._description = description

    async def index(self, request: Request) -> Response:
        """Where everything is."""
        return Json(
            {
                "name": "Parley",
                "what": "a durable chat message broker",
                "version": version("parley"),
                "websocket": "/ws",
                "subprotocols": list(SUBPROTOCOLS),
                "api": "/openapi.json",
                "health": ["/healthz", "/readyz", "/metrics"],
            }
        )

    async def openapi(self, request: Request) -> Response:
        """The description of the HTTP interface."""
        return Json(self._description)


async def no_upgrade(request: Request) -> Response:
    """/ws without an upgrade."""
    content = {"code": Code.BAD_REQUEST, "message": UPGRADE}
    return Json(content, 426, {"upgrade": "websocket", "connection": "upgrade"})


async def late_upgrade(websocket: WebSocket) -> None:
    """/ws as a later request of a kept-alive connection, as some proxies do."""
    content = {"code": Code.BAD_REQUEST, "message": FIRST}
    await websocket.send_denial_response(Json(content, 409, {"connection": "close"}))
