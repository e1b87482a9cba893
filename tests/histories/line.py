"""One connection of a client, and the promises about replies: exactly one for each command, and on
one conversation in the order of the commands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import trio

from tests.helpers.peer import Carrier
from tests.histories.record import Map, Record

REPLY_S = 8.0
"""A command that is not answered by then: the client takes the connection for dead."""

OnReply = Callable[[Map], None]


class Lost(Exception):
    """The connection is of no more use."""


@dataclass
class _Asked:
    t: str
    conv: str
    at: float
    on_reply: OnReply


class Line:
    def __init__(self, carrier: Carrier, record: Record, name: str) -> None:
        self.carrier = carrier
        self.name = name
        self.opened = False
        """Whether its hello was answered with a welcome."""
        self._record = record
        self._last_id = 0
        self._asked: dict[int, _Asked] = {}
        self._order: dict[str, deque[int]] = {}

    @property
    def unanswered(self) -> int:
        return len(self._asked)

    async def post(self, t: str, fields: Map, on_reply: OnReply, *, conv: str = "") -> None:
        """Send a command; `on_reply` is called when its reply comes, in its place among events.

        `conv`: the conversation whose order it belongs to.
        """
        self._last_id += 1
        id_ = self._last_id
        self._asked[id_] = _Asked(t, conv, trio.current_time(), on_reply)
        if conv:
            self._order.setdefault(conv, deque()).append(id_)
        self._record.note(f"{self.name} > {t} {id_} {conv} {fields.get('key', '')}")
        await self.carrier.send({"t": t, "id": id_, **fields})

    async def ask(self, t: str, fields: Map) -> Map:
        """Send a command and wait for its reply. Raises `Lost` where none comes."""
        answers: list[Map] = []
        come = trio.Event()

        def on_reply(reply: Map) -> None:
            answers.append(reply)
            come.set()

        await self.post(t, fields, on_reply)
        with trio.move_on_after(REPLY_S):
            await come.wait()
        if not answers:
            raise Lost(f"no answer to {t}")
        return answers[0]

    def take_reply(self, reply: Map) -> None:
        """A frame with an id."""
        asked = self._asked.pop(reply["id"], None)
        if asked is None:
            self._record.wrong(f"{self.name}: a reply to nothing, or a second one: {reply}")
            return
        code = reply.get("code", "")
        self._record.note(
            f"{self.name} < {reply['t']} {reply['id']} {asked.t} {code} {reply.get('seq', '')}"
        )
        if asked.conv:
            order = self._order[asked.conv]
            if order[0] != reply["id"]:
                first = self._asked[order[0]]
                self._record.wrong(
                    f"{self.name}: in {asked.conv} {asked.t} {reply['id']} ({code}) was answered "
                    f"before {first.t} {order[0]}"
                )
            order.remove(reply["id"])
        if reply["t"] == "error":
            self._record.count(f"error {code}")
            behind_refused_hello = code == "unauthenticated" and not self.opened
            if code not in EXPECTED_CODES and not behind_refused_hello:
                self._record.wrong(f"{self.name}: {asked.t} was answered with {reply}")
        asked.on_reply(reply)

    def check_patience(self) -> None:
        """Raises `Lost` where a command has waited for too long."""
        for id_, asked in self._asked.items():
            if trio.current_time() - asked.at > REPLY_S:
                self._record.count("no answer in time")
                raise Lost(f"no answer to {asked.t} {id_}")
            return  # they are in the order of their times


EXPECTED_CODES = frozenset(
    {"unavailable", "rate_limited", "not_found", "forbidden", "conflict", "too_large"}
)
"""What a correct client may be told in a correct cluster, whatever fails; never `internal`."""
