"""The first commands of a connection: hello, login, register; refresh and ping at any time.

Handlers that turn the use cases of `broker.commands.account` into replies. Connections that say
hello at the same time are vouched for together, by one look into the store; the others wait in
their connection's own task. While one is under way, its connection is not read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec import UNSET, Struct, UnsetType

from actors.connection import HELD_BY_JOB
from actors.faults import defect, log_outage, unavailable
from actors.parking import Parking
from broker.commands.account import LoggedIn, Services, login, refresh, register, vouch
from broker.wire.commands import Hello, Login, Ping, Refresh, Register
from broker.wire.errors import Code, Refusal
from broker.wire.limits import Limits
from storage.errors import Unavailable

if TYPE_CHECKING:
    from actors.connection import Connection
    from actors.node import Node
    from broker.security.tokens import Claims
    from storage.records import User

HELLOS_AT_ONCE = 256
"""Connections that are vouched for with one look into the store."""


class Welcome(Struct, tag_field="t", tag="ok", gc=False, kw_only=True):
    """The `ok` of hello, and of login with the fields that hello does not have."""

    id: int
    user: int
    session: str
    server_time: int
    heartbeat_ms: int
    limits: Limits
    node: str
    token: str | UnsetType = UNSET
    refresh: str | UnsetType = UNSET
    expires: int | UnsetType = UNSET


class Opening:
    """`run` belongs to the tasks of the node; everything else is a handler of a command."""

    def __init__(self, node: Node, services: Services) -> None:
        self._node = node
        self._services = services
        self._hellos: list[tuple[Connection, Hello, Claims]] = []
        self._parking = Parking()

    # hello

    def hello(self, connection: Connection, command: Hello) -> None:
        """Check the token; the rest waits for the store."""
        encoding = connection.wire.codec.name
        if command.encoding not in (None, encoding):
            raise Refusal(Code.BAD_REQUEST, f"this connection speaks {encoding}", field="encoding")
        claims = self._services.tokens.verify(command.token, self._node.now_ms())
        connection.hold(HELD_BY_JOB)
        self._hellos.append((connection, command, claims))
        self._parking.unpark()

    async def run(self) -> None:
        """Vouch for those who said hello, as many at once as came meanwhile."""
        while True:
            if not self._hellos:
                await self._parking.park()
            batch, self._hellos = self._hellos[:HELLOS_AT_ONCE], self._hellos[HELLOS_AT_ONCE:]
            standings: list[User | Refusal]
            try:
                standings = await vouch(self._node.store, [claims for _, _, claims in batch])
            except Unavailable as error:
                self._node.counters.store_failures += 1
                log_outage(error)
                standings = [unavailable(error)] * len(batch)
            except Exception:  # noqa: BLE001 - the supervisor
                self._node.counters.crashes += 1
                standings = [defect("vouching for sessions")] * len(batch)
            await self._announce(standings)
            for (connection, command, claims), standing in zip(batch, standings, strict=True):
                try:
                    self._greet(connection, command, claims, standing)
                except Exception:  # noqa: BLE001 - the supervisor
                    connection.crashed()
            self._withdraw(standings)
            self._node.flusher.flush_now()

    async def _announce(self, standings: Iterable[User | Refusal]) -> None:
        """In a cluster: nobody's session opens before the other nodes know of it."""
        if self._node.cluster is not None:
            users = {user.id: user.hides for user in standings if not isinstance(user, Refusal)}
            if users:
                await self._node.cluster.here.announce(users)

    def _withdraw(self, standings: Iterable[User | Refusal]) -> None:
        """Of whom it did not come to a session."""
        if self._node.cluster is not None:
            users = [user.id for user in standings if not isinstance(user, Refusal)]
            self._node.cluster.here.withdraw(users)

    def _greet(
        self, connection: Connection, command: Hello, claims: Claims, standing: User | Refusal
    ) -> None:
        if isinstance(standing, Refusal):
            connection.refuse(command.id, standing)
        elif not connection.closing:
            device = command.device or ""
            _open(connection, standing, claims.session, device)
            connection.answer(self._welcome(command.id, standing.id, claims.session))
        connection.release(HELD_BY_JOB)

    def _welcome(self, command_id: int, user: int, session: str) -> Welcome:
        node = self._node
        return Welcome(
            id=command_id,
            user=user,
            session=session,
            server_time=node.now_ms(),
            heartbeat_ms=node.options.heartbeat_ms,
            limits=node.limits,
            node=node.name,
        )

    # login, register

    def login(self, connection: Connection, command: Login) -> None:
        """Open by name and password."""
        connection.begin(self._begin_login, command)

    async def _begin_login(self, connection: Connection, command: Login) -> None:
        await connection.perform_held(command, self._login)

    async def _login(self, connection: Connection, command: Login) -> None:
        device = command.device or ""
        address = address_of(connection.peer)
        done = await login(self._services, command.name, command.password, device, address)
        await self._announce([done.user])
        if connection.closing:
            self._withdraw([done.user])
            return
        _open(connection, done.user, done.session, device)
        welcome = self._welcome(command.id, done.user.id, done.session)
        welcome.token, welcome.refresh, welcome.expires = done.token, done.refresh, done.expires
        connection.answer(welcome)

    def register(self, connection: Connection, command: Register) -> None:
        """Make an account; the connection is not open by that."""
        connection.begin(self._begin_register, command)

    async def _begin_register(self, connection: Connection, command: Register) -> None:
        await connection.perform_held(command, self._register)

    async def _register(self, connection: Connection, command: Register) -> None:
        user = await register(
            self._services,
            command.name,
            command.password,
            nickname=command.nickname or "",
            email=command.email or "",
            phone=command.phone or "",
            address=address_of(connection.peer),
        )
        connection.ok(command.id, user=user.id)

    # refresh, ping

    def refresh(self, connection: Connection, command: Refresh) -> None:
        """Renew a session, before the opening or after it."""
        if connection.session is None:
            connection.begin(self._begin_refresh, command)
        else:
            connection.session.submit(connection, command, self._refresh)

    async def _begin_refresh(self, connection: Connection, command: Refresh) -> None:
        await connection.perform_held(command, self._refresh)

    async def _refresh(self, connection: Connection, command: Refresh) -> None:
        done: LoggedIn = await refresh(self._services, command.refresh)
        connection.ok(
            command.id,
            token=done.token,
            refresh=done.refresh,
            expires=done.expires,
            user=done.user.id,
        )

    def ping(self, connection: Connection, command: Ping) -> None:
        """The time here."""
        connection.ok(command.id, server_time=self._node.now_ms())


def _open(connection: Connection, user: User, session: str, device: str) -> None:
    connection.opened(user.id, session, device, user.generation, hidden=user.hides)


def address_of(peer: str) -> str:
    """A peer without its port."""
    return peer.rpartition(":")[0]
