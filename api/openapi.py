"""The OpenAPI document, generated from the types that the routes decode. No route is here."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import msgspec
from msgspec import Struct

OPENAPI_VERSION = "3.1.0"


class Error(Struct):
    """Why a request was refused; `field` is the one to blame, `after_ms` when to try again."""

    code: str
    message: str
    field: str | None = None
    after_ms: int | None = None


class Operation(Struct, frozen=True):
    """One method of one path, as the document tells of it."""

    method: str
    path: str
    summary: str
    takes: type[Struct] | None = None
    gives: type[Struct] | None = None
    status: int = 200
    query: type[Struct] | None = None
    operator: bool = False
    media: str = "application/json"


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The whole document."""
    types: list[Any] = [Error]
    for operation in operations:
        types += [t for t in (operation.takes, operation.gives) if t is not None]
    _, components = msgspec.json.schema_components(types, ref_template=_reference("{name}"))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {"title": "Parley", "version": version("parley")},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"operator": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.gives is not None:
        content = {"schema": {"$ref": _reference(operation.gives.__name__)}}
    described: dict[str, Any] = {
        "summary": operation.summary,
        "responses": {
            str(operation.status): {
                "description": HTTPStatus(operation.status).phrase,
                "content": {operation.media: content},
            },
            "default": {
                "description": "An error.",
                "content": {"application/json": {"schema": {"$ref": _reference("Error")}}},
            },
        },
    }
    if operation.takes is not None:
        body = {"schema": {"$ref": _reference(operation.takes.__name__)}}
        described["requestBody"] = {"required": True, "content": {"application/json": body}}
    if operation.query is not None:
        described["parameters"] = _parameters(operation.query)
    if operation.operator:
        described["security"] = [{"operator": []}]
    return described


def _parameters(query: type[Struct]) -> list[dict[str, Any]]:
    schema = msgspec.json.schema(query)
    properties = schema["$defs"][query.__name__]["properties"]
    return [{"name": name, "in": "query", "schema": kind} for name, kind in properties.items()]


def _reference(name: str) -> str:
    return f"#/components/schemas/{name}"
