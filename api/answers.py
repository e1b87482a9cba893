"""Requests' bodies and answers: JSON in, JSON out, errors in one shape with matching statuses.

An error is `{"code", "message"}` with `field` and `after_ms` where they help, as on the sockets.
No route and no rule is here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import orjson
import trio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from actors.faults import defect, log_outage, unavailable
from broker.wire.codec import field_refusal
from broker.wire.errors import Code, Refusal
from storage.errors import Unavailable

BODY_MAX_BYTES = 64 * 1024
BODY_TIMEOUT_S = 10.0

STATUS: dict[Code, int] = {
    Code.BAD_FRAME: 400,
    Code.BAD_REQUEST: 400,
    Code.UNKNOWN_COMMAND: 400,
    Code.UNAUTHENTICATED: 401,
    Code.FORBIDDEN: 403,
    Code.NOT_FOUND: 404,
    Code.CONFLICT: 409,
    Code.BLOCKED: 403,
    Code.MUTED: 403,
    Code.TOO_LARGE: 413,
    Code.RATE_LIMITED: 429,
    Code.UNAVAILABLE: 503,
    Code.INTERNAL: 500,
}
CODE_OF_STATUS: dict[int, Code] = {
    404: Code.NOT_FOUND,
    408: Code.BAD_REQUEST,
    413: Code.TOO_LARGE,
}
"""For what HTTP itself refuses; all else is a `bad_request`."""

T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]


class Json(Response):
    """A JSON answer that no cache keeps: all of them are about now, or about somebody."""

    media_type = "application/json"

    def __init__(self, content: Any, status: int = 200, headers: dict[str, str] | None = None):
        super().__init__(content, status, {"cache-control": "no-store", **(headers or {})})

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def supervised(endpoint: Endpoint) -> Endpoint:
    """The endpoint, whose failures become answers."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refusal as refusal:
            return refused(refusal)
        except Unavailable as error:
            log_outage(error)
            return refused(unavailable(error))
        except HTTPException:
            raise
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception:  # noqa: BLE001 - the supervisor
            return refused(defect(f"{request.method} {request.url.path}"))

    return answer


def refused(refusal: Refusal) -> Response:
    """The error answer."""
    content: dict[str, object] = {"code": refusal.code, "message": refusal.message}
    headers: dict[str, str] = {}
    if refusal.field is not None:
        content["field"] = refusal.field
    if refusal.after_ms is not None:
        content["after_ms"] = refusal.after_ms
        headers["retry-after"] = str(-(-refusal.after_ms // 1000))
    if refusal.code is Code.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    return Json(content, STATUS[refusal.code], headers)


async def http_error(request: Request, error: Exception) -> Response:
    """What the router or a body's limits refuse, in the same shape."""
    assert isinstance(error, HTTPException)
    code = CODE_OF_STATUS.get(error.status_code, Code.BAD_REQUEST)
    content = {"code": code, "message": error.detail}
    return Json(content, error.status_code, dict(error.headers or {}))


async def body_of(request: Request, decoder: msgspec.json.Decoder[T]) -> T:
    """The request's body as a typed struct.

    Raises `Refusal(bad_request)` naming the place of what is wrong; `HTTPException` 413 or 408 for
    a body that is too long or comes too slowly.
    """
    data = bytearray()
    with trio.move_on_after(BODY_TIMEOUT_S) as scope:
        async for chunk in request.stream():
            data += chunk
            if len(data) > BODY_MAX_BYTES:
                raise HTTPException(413, f"a body has at most {BODY_MAX_BYTES} bytes")
    if scope.cancelled_caught:
        raise HTTPException(408, f"the body did not come within {BODY_TIMEOUT_S:g} s")
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise field_refusal(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(Code.BAD_REQUEST, f"the body is not JSON: {error}") from None
