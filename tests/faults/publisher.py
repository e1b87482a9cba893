"""A client for whom the broker may be gone at any moment: what it has sent, and what was promised.

It keeps several sends unanswered, each under a key, and sends those again, in order and under the
same keys, whenever it is connected anew. It shares no code with the broker.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import msgpack
import trio

from tests.helpers.peer import framed

IN_FLIGHT = 16
ASKED_AGAIN = 3
"""Sends that were answered before and are sent again after each break."""
NEWEST = 300
"""Of the newest entries: a key is good for 1,000, and the others go on meanwhile."""

Map = dict[str, Any]
Named = tuple[str, int]
"""A conversation, and the how-manieth message of this publisher there, from 0."""


class Publisher:
    """`promised` are the seqs that were acknowledged; `seen` the entries that came live."""

    def __init__(self, token: str, convs: list[str], random: Random) -> None:
        self.token = token
        self.user = 0
        self.promised: dict[Named, int] = {}
        self.unanswered: dict[Named, int] = {}
        self.seen: dict[tuple[str, int], Map] = {}
        self.answers = 0
        self.repeated = 0
        """Answers to what was answered before."""
        self._convs = convs
        self._counts = dict.fromkeys(convs, 0)
        self._heads: dict[str, int] = {}
        self._random = random
        self._asked: dict[int, Named] = {}
        self._last_id = 0

    def key(self, named: Named) -> str:
        return f"{self.user}:{named[0]}:{named[1]}"

    async def run(self, host: str, port: int, done: trio.Event, *, more: bool) -> None:
        """Until the connection breaks; `done` is set when nothing is unanswered and no `more`."""
        try:
            stream = await trio.open_tcp_stream(host, port)
        except OSError:
            return
        async with stream:
            try:
                await stream.send_all(framed({"t": "hello", "id": 0, "token": self.token}))
                async for frame in frames(stream):
                    await stream.send_all(b"".join(map(framed, self._respond(frame, more))))
                    if not (more or self._asked):
                        done.set()
            except trio.BrokenResourceError:
                return

    def _respond(self, frame: Map, more: bool) -> list[Map]:
        """What to send upon a frame: after `hello` all that is open, after an answer the next."""
        if frame["t"] == "msg":
            self._see(frame)
            return []
        assert frame["t"] == "ok", frame
        if frame["id"] == 0:
            self.user = frame["user"]
            return self._again() + (self._next() if more else [])
        self._on_answer(self._asked.pop(frame["id"]), frame)
        return self._next() if more else []

    def _again(self) -> list[Map]:
        self._asked = {}
        answered = [named for named, seq in self.promised.items() if self._is_new(named[0], seq)]
        some = self._random.sample(answered, min(ASKED_AGAIN, len(answered)))
        return [self._send(named) for named in (*some, *self.unanswered)]

    def _is_new(self, conv: str, seq: int) -> bool:
        return seq > self._heads.get(conv, 0) - NEWEST

    def _next(self) -> list[Map]:
        commands = []
        while len(self._asked) < IN_FLIGHT:
            conv = self._random.choice(self._convs)
            named = conv, self._counts[conv]
            self._counts[conv] += 1
            self.unanswered[named] = 0
            commands.append(self._send(named))
        return commands

    def _send(self, named: Named) -> Map:
        self._last_id += 1
        self._asked[self._last_id] = named
        fields = {"conv": named[0], "key": self.key(named), "kind": "text", "body": str(named[1])}
        return {"t": "send", "id": self._last_id, **fields}

    def _on_answer(self, named: Named, answer: Map) -> None:
        self.answers += 1
        self.repeated += named in self.promised
        before = self.promised.setdefault(named, answer["seq"])
        assert before == answer["seq"], f"{named} was {before} and is {answer['seq']} now"
        self.unanswered.pop(named, None)

    def _see(self, entry: Map) -> None:
        place = entry["conv"], entry["seq"]
        assert place not in self.seen, "the same entry twice"
        self.seen[place] = entry
        self._heads[entry["conv"]] = entry["seq"]


async def frames(stream: trio.abc.Stream) -> AsyncIterator[Map]:
    """What comes until the stream ends, be it within a frame."""
    received = b""
    while data := await stream.receive_some(65536):
        received += data
        while len(received) >= 4:
            (length,) = struct.unpack_from(">I", received)
            if len(received) < 4 + length:
                break
            yield msgpack.unpackb(received[4 : 4 + length])
            received = received[4 + length :]
