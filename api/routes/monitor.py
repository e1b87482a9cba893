"""What goes on inside, for the operator alone: whoever has the operator's token.

It is a file in the data directory that only the broker's own user can read, so that at any hour
`curl -H "Authorization: Bearer $(cat DATA/operator)" …` is all that it takes.
"""

from __future__ import annotations

import heapq
import hmac
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from actors.connection import Connection
from actors.node import Node
from api.answers import Endpoint, Json
from broker.metrics import connections_by_wire, memory_bytes
from broker.wire.codec import field_refusal
from broker.wire.errors import Code, Refusal

PAGE_MAX = 1_000


class Page(Struct):
    """`after` is the `next` of the page before."""

    after: Annotated[int, Meta(ge=-1)] = -1
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = 100


class Monitor:
    """The endpoints; `operator` is the operator's token."""

    def __init__(self, node: Node, operator: bytes) -> None:
        self._node = node
        self._expected = b"Bearer " + operator

    def guarded(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint, for the operator only."""

        async def answer(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode("latin-1", "replace")
            if not hmac.compare_digest(given, self._expected):
                raise Refusal(
                    Code.UNAUTHENTICATED,
                    "for the operator: send `Authorization: Bearer …` with the token that is in "
                    "the file `operator` of the data directory",
                )
            return await endpoint(request)

        return answer

    async def system(self, request: Request) -> Response:
        """One look at everything that is counted."""
        node = self._node
        now_ms = node.now_ms()
        return Json(
            {
                "node": node.name,
                "time": now_ms,
                "uptime_ms": now_ms - node.started_ms,
                "draining": node.draining,
                "memory_bytes": memory_bytes(),
                "connections": {
                    "all": len(node.connections),
                    "opening": len(node.opening),
                    "lingering": len(node.lingering),
                    "stalled": len(node.stalled),
                    "max": node.options.max_connections,
                    "by_wire": connections_by_wire(node),
                },
                "users_online": len(node.registry.sessions),
                "conversations": len(node.registry.conversations),
                "turn": msgspec.structs.asdict(node.turn.statistics()),
                "counters": node.counters.snapshot(),
            }
        )

    async def cluster(self, request: Request) -> Response:
        """What this node knows of the cluster that it is in."""
        cluster = self._node.cluster
        return Json({"clustered": False} if cluster is None else cluster.status())

    async def connections(self, request: Request) -> Response:
        """A page of the connections, by their number in this process."""
        page = _page(request)
        behind = (c for c in self._node.connections if c.fd > page.after)
        found = heapq.nsmallest(page.limit + 1, behind, key=lambda c: c.fd)
        shown = found[: page.limit]
        content: dict[str, object] = {"connections": [self._shown(c) for c in shown]}
        if len(found) > len(shown):
            content["next"] = shown[-1].fd
        return Json(content)

    def _shown(self, connection: Connection) -> dict[str, object]:
        now = self._node.now()
        return {
            "connection": connection.fd,
            **msgspec.structs.asdict(connection.statistics()),
            "device": connection.device,
            "age_ms": round((now - connection.opened_at) * 1000),
            "silent_ms": round((now - connection.seen_at) * 1000),
        }


def _page(request: Request) -> Page:
    try:
        return msgspec.convert(dict(request.query_params), Page, strict=False)
    except msgspec.ValidationError as error:
        raise field_refusal(str(error)) from None
