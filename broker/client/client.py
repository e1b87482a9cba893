"""The client: one user's connection to a broker, kept up, and all that comes over it in order.

`connect` owns everything that runs beside the application; when its block ends, nothing is left.
The parts: `session` and `doubts` (commands), `cursors` and `follow` (entries), `link` (one
connection).
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from broker.client.address import Address
from broker.client.api import Api
from broker.client.backoff import full_jitter
from broker.client.buffer import EventBuffer
from broker.client.codec import Frame
from broker.client.cursors import Cursors
from broker.client.doubts import Doubts
from broker.client.errors import (
    BadAnswer,
    ClientClosed,
    CommandError,
    CommandTimeout,
    ConnectFailed,
    ConnectionEnded,
    NotLoggedIn,
    ParleyClientError,
)
from broker.client.follow import Follower
from broker.client.groups import one_of, unwrapped
from broker.client.limits import (
    CLOSING_SECONDS,
    COMMAND_ATTEMPTS,
    COMMAND_SECONDS,
    EVENTS_BUFFER,
    IN_FLIGHT_COMMANDS,
    RECONNECT_BASE_SECONDS,
    RECONNECT_CAP_SECONDS,
    RETRY_BASE_SECONDS,
    RETRY_CAP_SECONDS,
    RETRY_WAIT_MAX_SECONDS,
    STABLE_SECONDS,
)
from broker.client.link import End, Link
from broker.client.model import ConnectionChanged, Event, event
from broker.client.session import Session, State
from broker.client.transport import OpenStream, open_stream, open_transport
from broker.client.wakeup import Wakeup
from broker.wire.errors import RETRYABLE, ByeCode, Code

Token = str | Callable[[], Awaitable[str]]


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: Token,
    device: str | None = None,
    cursors: Mapping[str, int] | None = None,
    from_start: bool = False,
    buffer: int = EVENTS_BUFFER,
    ssl_context: ssl.SSLContext | None = None,
    open_stream: OpenStream = open_stream,
) -> AsyncIterator[Client]:
    """A connected `Client` for the length of the block.

    `url` is `ws://host:port/ws`, `wss://…`, `tcp://host:port` or `tls://…`. `token` is a session's
    token, or a function that gives a fresh one whenever a connection is opened. Entries come from
    now on; with `cursors` (as `Client.cursors` gave them) from there on, and conversations that are
    not named there as well as, with `from_start`, all come from their beginning. `buffer` bounds
    the events that wait for the application. `open_stream` is for proxies and tests.

    Raises `ConnectFailed`, `NotLoggedIn`, `ConnectionEnded`; later breaks are repaired unseen.
    """
    client = Client(
        Address.parse(url),
        token=token,
        device=device,
        cursors=Cursors(cursors or {}, from_now=cursors is None and not from_start),
        buffer=EventBuffer(buffer),
        ssl_context=ssl_context,
        opener=open_stream,
    )
    with unwrapped():
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(client._run)
                yield client
                await client._leave()
            finally:
                client._stop(ClientClosed("the client is closed: its block has ended"))
                nursery.cancel_scope.cancel()


class Client(Api):
    """A user's view of a broker. Made by `connect`; iterate over it for events.

    Iterating ends with an error when the client cannot go on (`NotLoggedIn`, `ConnectionEnded`);
    so do commands. Several tasks may send commands and take events at the same time.
    """

    def __init__(
        self,
        address: Address,
        *,
        token: Token,
        device: str | None,
        cursors: Cursors,
        buffer: EventBuffer,
        ssl_context: ssl.SSLContext | None,
        opener: OpenStream,
    ) -> None:
        self.user = 0
        """One's own id."""
        self.node = ""
        """The broker's node that this client is connected to."""
        self._address = address
        self._token = token
        self._device = device
        self._ssl_context = ssl_context
        self._opener = opener
        self._cursors = cursors
        self._events = buffer
        self._session = Session(cursors.reached)
        self._follower = Follower(cursors, buffer, self._perform)
        self._output = Wakeup()
        self._doubts = Doubts(self._session, self._perform, self._output.set)
        self._slots = trio.Semaphore(IN_FLIGHT_COMMANDS)
        self._link: Link | None = None
        self._watched: set[int] = set()
        self._leaving = False
        self._finished = trio.Event()

    @property
    def cursors(self) -> dict[str, int]:
        """After which seq each conversation continues, by what the application has taken so far:
        keep it, and give it to the next `connect`."""
        return self._events.before(self._cursors.positions())

    @property
    def connected(self) -> bool:
        """Whether there is an open connection at the moment."""
        return self._session.state is State.OPEN

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        try:
            return await self._events.get()
        except ClientClosed:
            raise StopAsyncIteration from None

    async def command(
        self,
        name: str,
        /,
        *,
        timeout: float = COMMAND_SECONDS,  # noqa: ASYNC109 - it bounds retries, too
        **fields: Any,
    ) -> Frame:
        """Perform any command and return its answer's fields. Fields that are None are left out.

        What is safe to repeat is, across reconnects and where the broker asks for it, for at most
        `timeout` seconds. Raises `CommandError`, `CommandTimeout`, `Disconnected` (only what is not
        safe to repeat), `NotLoggedIn`, `ConnectionEnded`, `ClientClosed`.
        """
        with trio.move_on_after(timeout):
            async with self._slots:
                answer = await self._perform(name, fields)
            if name == "presence.watch":
                self._watched.update(fields["users"])
            elif name == "presence.unwatch":
                self._watched.difference_update(fields["users"])
            return answer
        raise CommandTimeout(name, timeout, fields.get("key"))

    async def _perform(self, name: str, fields: dict[str, Any]) -> Frame:
        wakeup = Wakeup()
        call = self._session.call(name, fields, wakeup.set)
        attempt = 0
        try:
            while True:
                self._output.set()
                # A reader that waits for room must now read on, for the answer.
                self._events.emptied.set()
                while call.outcome is None:
                    await wakeup.wait()
                if isinstance(call.outcome, dict):
                    return call.outcome
                delay = _retry_seconds(call.outcome, attempt, safe=call.safe)
                if delay is None:
                    raise call.outcome.with_traceback(None)
                attempt += 1
                await trio.sleep(delay)
                self._session.again(call)
        finally:
            self._session.forget(call)

    # The connection, kept up

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        attempt = 0
        first = True

        async def work(welcome: Frame) -> None:
            nonlocal first
            self._welcomed(welcome, again=not first)
            if first:
                first = False
                task_status.started()
            with one_of(ParleyClientError):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._doubts.run)
                    await self._rewatch()
                    await self._follower.run()

        try:
            while True:
                began = trio.current_time()
                end = await self._connection(work)
                if self._leaving:
                    return
                if first:
                    raise _final(end) or ConnectFailed(end.reason)
                if (error := _final(end)) is not None:
                    self._stop(error)
                    return
                self._events.offer(ConnectionChanged(up=False, reason=end.reason))
                lived = trio.current_time() - began
                attempt = 0 if lived >= STABLE_SECONDS else attempt + 1
                await trio.sleep(_pause_seconds(end, attempt))
        finally:
            self._finished.set()

    async def _connection(self, work: Callable[[Frame], Awaitable[None]]) -> End:
        """One connection, from dialling to its end."""
        try:
            token = self._token if isinstance(self._token, str) else await self._token()
            async with open_transport(self._address, self._ssl_context, self._opener) as transport:
                self._link = Link(
                    transport,
                    self._session,
                    on_event=self._follower.on_event,
                    may_read=self._may_read,
                    output=self._output,
                )
                return await self._link.run(token, self._device, work)
        except (ConnectFailed, CommandError, BadAnswer) as error:
            return End(str(error))
        except NotLoggedIn as error:
            return End(str(error), error=error)
        finally:
            self._link = None
            self._session.lost()
            self._cursors.lost()

    def _welcomed(self, welcome: Frame, *, again: bool) -> None:
        user, node = welcome.get("user"), welcome.get("node")
        if not isinstance(user, int):
            raise BadAnswer("the broker's welcome names no user")
        self.user = self._cursors.user = user
        self.node = str(node or "")
        if again:
            self._events.offer(ConnectionChanged(up=True))

    async def _rewatch(self) -> None:
        """What was watched is watched again: the broker forgot it with the connection."""
        if self._watched:
            answer = await self._perform("presence.watch", {"users": sorted(self._watched)})
            self._events.offer(event({"t": "presence", "users": answer.get("users") or []}))

    async def _may_read(self) -> None:
        while self._events.full and not self._session.waiting:
            await self._events.emptied.wait()

    async def _leave(self) -> None:
        """Close the connection in order, if there is one."""
        self._leaving = True
        if self._link is not None:
            self._link.finish(End("the client's block has ended"))
            with trio.move_on_after(CLOSING_SECONDS):
                await self._finished.wait()

    def _stop(self, error: ParleyClientError) -> None:
        """Nothing comes or goes any more; whoever waits gets `error`."""
        self._session.end(error)
        self._events.end(error)


def _final(end: End) -> ParleyClientError | None:
    """What the application must be told, or None if the client may come back."""
    if isinstance(end.error, CommandError) and end.error.retry:
        return None
    if end.error is not None or end.reconnect:
        return end.error
    if end.code == ByeCode.SESSION_REVOKED:
        return NotLoggedIn(f"{end.reason}: the session has ended, log in again")
    return ConnectionEnded(end.code, end.reason)


def _pause_seconds(end: End, attempt: int) -> float:
    """How long to stay away after a connection's end; `attempt` 0: it had lived for a while."""
    if end.after_seconds is not None and attempt == 0:
        return end.after_seconds
    pause = full_jitter(attempt, base=RECONNECT_BASE_SECONDS, cap=RECONNECT_CAP_SECONDS)
    # A broker that sends everybody away at once again must not be asked ever faster.
    return max(pause, end.after_seconds or 0.0)


def _retry_seconds(refusal: ParleyClientError, attempt: int, *, safe: bool) -> float | None:
    """How long to wait before a refused command is sent again; None if it is not."""
    if not isinstance(refusal, CommandError) or not refusal.retry:
        return None
    # A limited command was not done at all; an unavailable one may have been.
    repeatable = refusal.code in RETRYABLE and (safe or refusal.code == Code.RATE_LIMITED)
    if not repeatable or attempt + 1 >= COMMAND_ATTEMPTS:
        return None
    if refusal.after_ms is None:
        return full_jitter(attempt, base=RETRY_BASE_SECONDS, cap=RETRY_CAP_SECONDS)
    seconds = refusal.after_ms / 1000
    return seconds if seconds <= RETRY_WAIT_MAX_SECONDS else None
