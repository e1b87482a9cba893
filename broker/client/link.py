"""One connection from greeting to its end: reading, writing, heartbeat. It never reconnects.

The commands are the session's, which outlives the link; what events mean is the client's.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from broker.client.codec import Frame, unpack
from broker.client.errors import BadAnswer, ParleyClientError
from broker.client.groups import unwrapped
from broker.client.limits import (
    CLOSING_SECONDS,
    HEARTBEAT_MIN_SECONDS,
    OPENING_SECONDS,
    WRITE_BATCH_FRAMES,
)
from broker.client.session import Call, Session
from broker.client.transport import Transport, TransportBroken
from broker.client.wakeup import Wakeup


@dataclass(frozen=True, slots=True)
class End:
    """How a connection ended.

    `error`: do not come back, and tell the application this. `after_seconds`: when the broker
    wants to see this client again.
    """

    reason: str
    code: str = ""
    reconnect: bool = True
    after_seconds: float | None = None
    error: ParleyClientError | None = None


class Link:
    """One connection. `run` ends with it; everything else is a plain call.

    `on_event` takes an event's frame and may raise `BadAnswer`. `may_read` is awaited before each
    read and each frame: while it waits, what the broker sends stays in the socket. `output` is
    given whenever the session has something to write.
    """

    def __init__(
        self,
        transport: Transport,
        session: Session,
        *,
        on_event: Callable[[Frame], None],
        may_read: Callable[[], Awaitable[None]],
        output: Wakeup,
    ) -> None:
        self._transport = transport
        self._session = session
        self._on_event = on_event
        self._may_read = may_read
        self._output = output
        self._heartbeat_seconds = math.inf
        self._listening_since = math.inf
        """Since when the reader waits for bytes; infinite while it does not."""
        self._welcome: Frame | None = None
        self._opened = trio.Event()
        self._end: End | None = None
        self._scope = trio.CancelScope()

    def finish(self, end: End) -> None:
        """End the connection, for this reason unless there was one before."""
        if self._end is None:
            self._end = end
        self._scope.cancel()

    async def run(
        self, token: str, device: str | None, work: Callable[[Frame], Awaitable[None]]
    ) -> End:
        """Greet and serve until the end. `work(welcome)` runs beside, once the link is open."""
        with unwrapped():
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                if self._end is not None:
                    self._scope.cancel()
                hello = self._session.opening(token, device, lambda: self._answered(hello))
                nursery.start_soon(self._read)
                nursery.start_soon(self._write)
                try:
                    with trio.move_on_after(OPENING_SECONDS) as opening:
                        await self._opened.wait()
                finally:
                    self._session.forget(hello)
                if opening.cancelled_caught or self._welcome is None:
                    self.finish(End(f"no welcome within {OPENING_SECONDS:g} s"))
                else:
                    nursery.start_soon(self._watch_silence)
                    nursery.start_soon(work, self._welcome)
        assert self._end is not None
        return self._end

    def _answered(self, hello: Call) -> None:
        outcome = hello.outcome
        if isinstance(outcome, dict):
            beat = outcome.get("heartbeat_ms")
            if isinstance(beat, int) and beat > 0:
                self._heartbeat_seconds = max(beat / 1000, HEARTBEAT_MIN_SECONDS)
            self._welcome = outcome
            self._session.opened(outcome)
            self._output.set()
            self._opened.set()
        elif isinstance(outcome, ParleyClientError):
            self.finish(End(str(outcome), error=outcome))

    async def _read(self) -> None:
        try:
            while True:
                await self._may_read()
                self._listening_since = trio.current_time()
                frames = await self._transport.receive()
                self._listening_since = math.inf
                for data in frames:
                    await self._may_read()
                    self._take(unpack(data))
        except (TransportBroken, BadAnswer) as error:
            self.finish(End(str(error)))

    async def _watch_silence(self) -> None:
        """End a connection that has been listened to for two heartbeats without a word."""
        silence_seconds = 2 * self._heartbeat_seconds
        while True:
            since = min(self._listening_since, trio.current_time())
            await trio.sleep_until(since + silence_seconds)
            # A time limit around every single read would cost more than the read.
            if self._listening_since == since:
                self.finish(End(f"the broker was silent for {silence_seconds:g} s"))

    def _take(self, frame: Frame) -> None:
        match frame.get("t"):
            case "ok" | "error":
                self._session.reply(frame)
            case "bye":
                self.finish(_goodbye(frame, self._session))
            case _:
                self._on_event(frame)

    async def _write(self) -> None:
        session = self._session
        while True:
            while not session.has_output:
                with trio.move_on_after(self._heartbeat_seconds) as beat:
                    await self._output.wait()
                if beat.cancelled_caught:
                    session.ping()
            try:
                await self._transport.send(session.take(WRITE_BATCH_FRAMES))
            except TransportBroken as error:
                # A goodbye may have come before: the reader is given the time to find it.
                await trio.sleep(CLOSING_SECONDS)
                self.finish(End(str(error)))
                return


def _goodbye(frame: Frame, session: Session) -> End:
    code = str(frame.get("code", ""))
    after_ms = frame.get("after_ms")
    complaint = f": {session.complaint}" if session.complaint else ""
    return End(
        f"the broker said goodbye, {code}{complaint}",
        code=code,
        reconnect=bool(frame.get("reconnect")),
        after_seconds=after_ms / 1000 if isinstance(after_ms, int) else None,
    )
