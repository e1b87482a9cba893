"""Is it alive, is it ready, what does it count: for load balancers and Prometheus."""

from __future__ import annotations

import trio
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from actors.node import Node
from api.answers import Json
from broker.wire.errors import Code
from storage.errors import Unavailable

PING_TIMEOUT_S = 2.0


class Health:
    """`registry` is what /metrics shows."""

    def __init__(self, node: Node, registry: CollectorRegistry) -> None:
        self._node = node
        self._registry = registry

    async def healthz(self, request: Request) -> Response:
        """The process lives and its loop turns."""
        return Json({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """A message sent now could be stored; not so while draining."""
        if self._node.draining:
            return _not_ready("draining")
        try:
            with trio.fail_after(PING_TIMEOUT_S):
                await self._node.store.ping()
        except Unavailable:
            return _not_ready("the store is not available")
        except trio.TooSlowError:
            return _not_ready(f"the store did not answer within {PING_TIMEOUT_S:g} s")
        return Json({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        """In Prometheus' text format."""
        return Response(
            generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST}
        )


def _not_ready(message: str) -> Response:
    return Json({"code": Code.UNAVAILABLE, "message": message}, 503)
