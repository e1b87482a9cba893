"""A locust scenario: people with tokens sit in one open group, talk, and hear each other.

    parley token --data DIR --create $(seq -f 'locust%g' 100) > tokens.txt
    locust -f bench/locustfile.py --headless -u 100 -r 20 -t 1m \
        --host ws://127.0.0.1:7400/ws --tokens tokens.txt

For behaviour under many clients with pauses, seen through locust's own statistics: `send` is the
time to the durable answer, `deliver` from one user's send to another's receipt. It is no measure of
what the broker can do (a Python client costs more than the broker): that is `parley bench`.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from pathlib import Path
from typing import Any

import gevent  # type: ignore[import-untyped]
import msgpack  # type: ignore[import-untyped]
from gevent.event import AsyncResult  # type: ignore[import-untyped]
from gevent.lock import Semaphore  # type: ignore[import-untyped]
from locust import User, between, events, task
from locust.env import Environment
from locust.exception import StopUser
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

REPLY_TIMEOUT_S = 30.0
GROUP_TITLE = "locust"


class Refused(Exception):
    """The broker answered a command with an error."""


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _add_arguments(parser: Any, **_: object) -> None:
    parser.add_argument(
        "--tokens", metavar="FILE", required=True, help="session tokens, a line each"
    )


class Room:
    """The group that all users of this process share: the first makes it, the others join."""

    def __init__(self) -> None:
        self.conv = ""
        self.lock = Semaphore()


class Talker(User):
    """One person with one connection."""

    wait_time = between(0.1, 0.5)
    room = Room()
    numbers = itertools.count()

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.ids = itertools.count(1)
        self.stack = contextlib.ExitStack()
        self.reader: gevent.Greenlet | None = None
        self.waiting: dict[int, AsyncResult] = {}

    def on_start(self) -> None:
        """Connect with the next token and enter the room; without a token left, stay away."""
        tokens = Path(self.environment.parsed_options.tokens).read_text().split()
        if (number := next(self.numbers)) >= len(tokens):
            raise StopUser
        if not self.host:
            raise StopUser("--host is missing: the broker's WebSocket URL")
        opening = connect(self.host, subprotocols=[Subprotocol("parley.msgpack.v1")])
        self.websocket: ClientConnection = self.stack.enter_context(opening)
        self.reader = gevent.spawn(self._read)
        self.user = self.timed("hello", token=tokens[number])["user"]
        self._enter()

    def on_stop(self) -> None:
        """Leave."""
        self.stack.close()
        if self.reader:
            self.reader.join(REPLY_TIMEOUT_S)

    @task
    def talk(self) -> None:
        """Say something; the body carries the time, so that others know how long it took."""
        key = f"{self.user}-{next(self.numbers)}"
        self.timed("send", conv=self.room.conv, key=key, kind="text", body=f"{time.time()!r} hi")

    def timed(self, name: str, **fields: object) -> dict[str, Any]:
        """One command, as a request of locust's statistics. Raises `Refused`, `gevent.Timeout`."""
        begin = time.perf_counter()
        try:
            reply = self.ask(name, **fields)
        except (Refused, ConnectionClosed, gevent.Timeout) as error:
            self._report(name, time.perf_counter() - begin, error)
            raise StopUser from error
        self._report(name, time.perf_counter() - begin)
        return reply

    def ask(self, name: str, **fields: object) -> dict[str, Any]:
        """Send a command and wait for its reply."""
        number = next(self.ids)
        self.waiting[number] = answer = AsyncResult()
        self.websocket.send(msgpack.packb({"t": name, "id": number, **fields}))
        try:
            reply: dict[str, Any] = answer.get(timeout=REPLY_TIMEOUT_S)
        finally:
            del self.waiting[number]
        if reply["t"] == "error":
            raise Refused(f"{reply['code']}: {reply['message']}")
        return reply

    def _enter(self) -> None:
        with self.room.lock:
            if self.room.conv:
                self.timed("group.join", conv=self.room.conv)
            else:
                made = self.timed(
                    "group.create", title=GROUP_TITLE, visibility="public", join="open"
                )
                self.room.conv = made["conv"]

    def _read(self) -> None:
        try:
            for message in self.websocket:
                self._take(msgpack.unpackb(message))
        except ConnectionClosed:
            return

    def _take(self, event: dict[str, Any]) -> None:
        if "id" in event:
            if answer := self.waiting.get(event["id"]):
                answer.set(event)
        elif event["t"] == "msg" and event["kind"] == "text" and event["from"] != self.user:
            self._report("deliver", time.time() - float(event["body"].split()[0]))

    def _report(self, name: str, seconds: float, error: BaseException | None = None) -> None:
        self.environment.events.request.fire(
            request_type="parley",
            name=name,
            response_time=seconds * 1_000,
            response_length=0,
            exception=error,
            context={},
        )
