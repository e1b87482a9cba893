"""The HTTP application: which path leads where. A table; what is done there is in `api.routes`."""

from __future__ import annotations

from typing import NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route, WebSocketRoute

from actors.node import Node
from api.answers import Endpoint, http_error, supervised
from api.openapi import Operation, document
from api.routes.about import About, late_upgrade, no_upgrade
from api.routes.accounts import (
    Accounts,
    LoginBody,
    RefreshBody,
    RegisterBody,
    Registered,
    Session,
)
from api.routes.health import Health
from api.routes.monitor import Monitor, Page
from broker.commands.account import Services
from broker.metrics import registry


class Entry(NamedTuple):
    """A route and what the description says of it."""

    operation: Operation
    endpoint: Endpoint


def application(node: Node, services: Services, operator: bytes) -> Starlette:
    """The ASGI application of one node. `operator` is the operator's token."""
    entries = [
        *_health(Health(node, registry(node))),
        *_accounts(Accounts(services)),
        *_monitor(Monitor(node, operator)),
    ]
    about = About(document([operation for operation, _ in entries]))
    routes: list[BaseRoute] = [
        Route("/", supervised(about.index), methods=["GET"]),
        Route("/openapi.json", supervised(about.openapi), methods=["GET"]),
        Route("/ws", supervised(no_upgrade), methods=["GET"]),
        WebSocketRoute("/{path:path}", late_upgrade),
        *(
            Route(operation.path, supervised(endpoint), methods=[operation.method])
            for operation, endpoint in entries
        ),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: http_error})


def _health(health: Health) -> list[Entry]:
    return [
        Entry(Operation("GET", "/healthz", "The process lives."), health.healthz),
        Entry(Operation("GET", "/readyz", "Messages can be stored."), health.readyz),
        Entry(
            Operation("GET", "/metrics", "Metrics for Prometheus.", media="text/plain"),
            health.metrics,
        ),
    ]


def _accounts(accounts: Accounts) -> list[Entry]:
    return [
        Entry(
            Operation(
                "POST", "/api/register", "Make an account.", RegisterBody, Registered, status=201
            ),
            accounts.register,
        ),
        Entry(
            Operation("POST", "/api/login", "Begin a session.", LoginBody, Session),
            accounts.login,
        ),
        Entry(
            Operation("POST", "/api/refresh", "Renew a session.", RefreshBody, Session),
            accounts.refresh,
        ),
    ]


def _monitor(monitor: Monitor) -> list[Entry]:
    return [
        Entry(
            Operation("GET", "/api/monitor/system", "Counts and statistics.", operator=True),
            monitor.guarded(monitor.system),
        ),
        Entry(
            Operation("GET", "/api/monitor/cluster", "Nodes, slots and lag.", operator=True),
            monitor.guarded(monitor.cluster),
        ),
        Entry(
            Operation("GET", "/api/monitor/connections", "Connections.", query=Page, operator=True),
            monitor.guarded(monitor.connections),
        ),
    ]
