"""The broker as a whole: what is opened around what, so that it stops from the outside in.

stores ⊃ tasks (turn, loader, flusher, reader, presence, sweeper, …) ⊃ connections ⊃ listeners.
Decides nothing about messages. A crash of an infrastructure task ends the process, loudly: clients
reconnect, and all that was acknowledged is in the store.
"""

from __future__ import annotations

import errno
import gc
import os
import secrets
import socket
import ssl
from functools import partial

import trio

from actors.cluster.cluster import Cluster
from actors.cluster.words import Suspect
from actors.housekeeping import keep_house
from actors.node import Node, Options
from actors.sweeper import run_sweeper
from actors.wires import TCP_MSGPACK
from api.app import application
from api.server import HttpServer
from broker.commands.account import Services
from broker.commands.opening import Opening
from broker.commands.rates import SharedLimit
from broker.commands.revocation import Revocation
from broker.commands.tables import open_table, opening_table
from broker.config import Config, Tls
from broker.drain import finish, hand_over, say_goodbye
from broker.listener import Listener, bind
from broker.running import Address, Running
from broker.security.passwords import Passwords
from broker.security.secret import OPERATOR_FILE, load_secret
from broker.security.tokens import Tokens
from broker.stores import Stores, open_stores
from storage.interfaces import Store
from storage.shared import Ephemeral
from storage.tls import load_own

GC_THRESHOLDS = (50_000, 20, 100)
"""Hardly anything here is part of a cycle, and looking for cycles costs; see the design's rules."""


async def run(
    config: Config, *, task_status: trio.TaskStatus[Running] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve from the data directory until stopped.

    Raises `OSError`, `SecretError` or `StoreError` if the directory, the certificate or a port
    cannot be used. Cancelling it stops without a drain, and loses nothing that was acknowledged.
    """
    # Messages are nobody else's to read, even where the directory is open to others.
    os.umask(0o077)
    config.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = load_secret(config.data)
    operator = load_secret(config.data, file=OPERATOR_FILE)
    inbox = secrets.token_hex(8)
    async with open_stores(config, incarnation=inbox, secret=secret) as stores:
        _settle_memory()
        node = node_of(config, stores.store)
        join_cluster(config, node, stores, inbox)
        await serve(
            config, node, secret, operator, ephemeral=stores.ephemeral, task_status=task_status
        )


async def serve(
    config: Config,
    node: Node,
    secret: bytes,
    operator: bytes,
    *,
    ephemeral: Ephemeral | None = None,
    task_status: trio.TaskStatus[Running] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve with a node of any store; the store is the caller's to close.

    `secret` signs session tokens; `operator` is the token that opens /api/monitor.
    """
    context = tls_context(config.tls)
    revocation = Revocation(node)
    shared = services(config, node, secret, revocation, ephemeral)
    opening = Opening(node, shared)
    node.opening_table = opening_table(opening)
    node.open_table = open_table(opening)
    server = HttpServer(application(node, shared, operator))
    node.http = server.serve
    stop = trio.Event()
    shared_ports = config.cluster.workers > 1
    async with trio.open_nursery() as tasks:
        node.tasks = tasks
        for task in (
            node.turn.run,
            node.turn.run_loader,
            node.flusher.run,
            node.reader.run,
            node.presence.run,
            opening.run,
            revocation.run,
        ):
            tasks.start_soon(task)
        tasks.start_soon(run_sweeper, node)
        tasks.start_soon(keep_house, node)
        if node.cluster is not None:
            node.cluster.suspect = revocation.look_soon
            node.cluster.start(tasks)
            await node.cluster.placement.wait_joined()
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as listeners:
                tcp = Listener(node, TCP_MSGPACK, context, connections)
                http = Listener(node, None, context, connections)
                running = Running(
                    http=_listen(listeners, http, config.http.host, config.http.port, shared_ports),
                    tcp=_listen(listeners, tcp, config.tcp.host, config.tcp.port, shared_ports),
                    stop=stop.set,
                )
                if node.cluster is not None:
                    own = running.http
                    if port := config.cluster.worker_http_port:
                        own = _listen(listeners, http, config.http.host, port, shared=False)
                    node.cluster.listens(str(own), str(running.tcp))
                task_status.started(running)
                await stop.wait()
                listeners.cancel_scope.cancel()
            await hand_over(node, config.connections.drain_ms)
            drain_s = config.connections.drain_ms / 1000
            connections.cancel_scope.deadline = trio.current_time() + drain_s
            await server.close()
            await say_goodbye(node, config.connections.drain_ms)
        await finish(node)
        tasks.cancel_scope.cancel()


def _listen(
    nursery: trio.Nursery, listener: Listener, host: str, port: int, shared: bool
) -> Address:
    sockets = bind(host, port, shared=shared)
    for sock in sockets:
        nursery.start_soon(listener.run, sock)
    return _address(sockets[0])


def _address(sock: socket.socket) -> Address:
    host, port, *_ = sock.getsockname()
    return Address(host, port)


def _settle_memory() -> None:
    """What is there now stays: the collector need never look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def node_of(config: Config, store: Store) -> Node:
    """The actors' common ground, as it is configured; nothing runs yet."""
    return Node(
        store,
        limits=config.limits,
        options=options(config),
        allowed_origins=frozenset(config.http.allowed_origins) or None,
    )


def join_cluster(config: Config, node: Node, stores: Stores, inbox: str) -> None:
    """Make the node one of many, where nodes share something; `inbox` is its place on the bus."""
    if stores.leases is None or stores.bus is None or stores.presence is None:
        return
    node.name = config.node_name
    node.cluster = Cluster(
        node,
        name=node.name,
        inbox=inbox,
        leases=stores.leases,
        bus=stores.bus,
        presence=stores.presence,
        lease_ms=config.cluster.lease_ms,
    )


def options(config: Config) -> Options:
    """What the actors are told of the configuration."""
    return Options(
        heartbeat_ms=config.connections.heartbeat_ms,
        opening_timeout_ms=config.connections.opening_timeout_ms,
        max_connections=config.connections.max,
        soft_bytes=config.outbox.soft_bytes,
        high_bytes=config.outbox.high_bytes,
        hard_bytes=config.outbox.hard_bytes,
        stall_ms=config.outbox.stall_ms,
        passivate_ms=config.conversations.passivate_ms,
        receipts_max_members=config.conversations.read_receipts_max_members,
        presence_coalesce_ms=config.presence.coalesce_ms,
        edit_window_ms=config.conversations.edit_window_ms,
        recall_window_ms=config.conversations.recall_window_ms,
        sends_per_second=float(config.rates.sends_per_s),
        sends_burst=config.rates.sends_burst,
    )


def services(
    config: Config,
    node: Node,
    secret: bytes,
    revocation: Revocation,
    ephemeral: Ephemeral | None = None,
) -> Services:
    """What the accounts' commands need."""

    def limit(what: str, per_minute: int) -> SharedLimit:
        return SharedLimit(what, per_minute, node.now, ephemeral)

    return Services(
        store=node.store,
        tokens=Tokens(secret, config.tokens.access_ttl_s),
        passwords=Passwords(config.passwords),
        logins=limit("logins", config.rates.logins_per_min),
        registrations=limit("registrations", config.rates.registers_per_min),
        refresh_ttl_ms=config.tokens.refresh_ttl_s * 1000,
        now_ms=node.now_ms,
        suspect=partial(_suspect, node, revocation),
    )


def _suspect(node: Node, revocation: Revocation) -> None:
    revocation.look_soon()
    if node.cluster is not None:
        node.cluster.tell_all(Suspect())


def tls_context(tls: Tls) -> ssl.SSLContext | None:
    """The server's side of TLS, if a certificate is configured. Raises `OSError`."""
    if tls.cert is None or tls.key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        load_own(context, tls.cert, tls.key)
    except ssl.SSLError as error:
        reason = f"not a certificate chain and its key in PEM ({error.reason or 'no PEM in it'})"
        raise OSError(error.errno, reason, str(tls.cert)) from error
    except ValueError as error:
        raise OSError(errno.EINVAL, f"cannot be used: {error}", str(tls.cert)) from error
    return context
