"""The bus over Redis's channels: one thread listens at a node's inbox, the pipeline sends.

Redis forgets what nobody listens to, so the bus loses whatever is sent while a listener is away.
Each message carries its sender's number: what comes late or twice, say out of the buffers of a
connection that was given up, is left out. Whether the channel carries is tried all the time by a
beat to oneself. Nothing here asks for anything to be sent again.

On a cluster the channels are sharded ones. A listener who does not keep up is cut off by Redis's
`client-output-buffer-limit pubsub` (32 MB); the thread here reads on while the loop is busy.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

import trio
from msgspec import Struct

from storage.errors import Unavailable
from storage.redis.link import ANSWER_MAX_S, Answer, Link
from storage.redis.pipeline import BACKOFF_FIRST_S, BACKOFF_LAST_S, Pipeline

_log = logging.getLogger(__name__)

MESSAGE_MAX_BYTES = 20 * 1024 * 1024
"""A message over it is refused: the greatest body that can be configured fits, with its frame."""

INBOX_MAX_BYTES = 64 * 1024 * 1024
"""What waits for `receive`. What comes over it is lost and counted."""

BEAT_S = 1.0
"""How often a node sends to itself; silence for `ANSWER_MAX_S` means that nothing gets through."""

SENDERS_MAX = 4_096
"""Senders whose last number is remembered; the one that was first heard of is forgotten first."""

SENDER_BYTES = 8
HEADER_BYTES = SENDER_BYTES + 8
"""The sender, by chance, and the number of its message, from 1 on."""

WORDS_OF_A_MESSAGE = 3
"""Its kind, its channel, and what is in it."""


class BusStatistics(Struct, frozen=True):
    """`dropped` found no room, `late` came out of order. `interruptions` grows when messages may
    have been lost on the way, so that whoever must know can compare."""

    listening: bool
    received: int
    received_bytes: int
    waiting_bytes: int
    dropped: int
    late: int
    interruptions: int


class RedisBus:
    """`storage.shared.Bus`. One task at a time may `receive`.

    `listening` is a link that has subscribed to `channels(...)`; `subscribe` makes another one
    whenever it was lost, and raises `Unavailable`.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        names: ChannelNames,
        inbox: str,
        listening: Link,
        subscribe: Callable[[], Link],
    ) -> None:
        self._pipeline = pipeline
        self._names = names
        self._inbox, self._beats = names.inbox(inbox), names.beats(inbox)
        self._sender = os.urandom(SENDER_BYTES)
        self._number = 0
        self._link: Link | None = listening
        self._subscribe = subscribe
        self._token = trio.lowlevel.current_trio_token()
        self._arrival = trio.Event()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._last: dict[bytes, bytes] = {}
        """By sender, its highest number, as it was sent: big-endian, so that it compares."""
        self._received = self._received_bytes = self._dropped = self._late = 0
        self._interruptions = 0
        self._thread = threading.Thread(target=self._serve, name="redis-bus", daemon=True)
        self._thread.start()

    def send(self, to: str, data: bytes) -> bool:
        if len(data) > MESSAGE_MAX_BYTES:
            return False
        self._number += 1
        message = b"%b%b%b" % (self._sender, self._number.to_bytes(8, "big"), data)
        return self._pipeline.post(
            (self._names.publish, self._names.inbox(to), message), len(message)
        )

    async def receive(self) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            self._arrival = trio.Event()
            await self._arrival.wait()
        with self._lock:
            taken, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return taken

    def statistics(self) -> BusStatistics:
        return BusStatistics(
            listening=self._link is not None,
            received=self._received,
            received_bytes=self._received_bytes,
            waiting_bytes=self._waiting_bytes,
            dropped=self._dropped,
            late=self._late,
            interruptions=self._interruptions,
        )

    async def aclose(self) -> None:
        """End the thread. What has come is still received."""
        self._closing.set()
        if (link := self._link) is not None:
            link.interrupt()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._thread.join)

    def _serve(self) -> None:
        while not self._closing.is_set():
            link = self._link or self._come_back()
            if link is None:
                return
            try:
                self._listen(link)
            except Unavailable as error:
                if not self._closing.is_set():
                    _log.warning("the bus was interrupted: %s", error)
            except Exception:  # noqa: BLE001 - the supervisor: the thread listens again
                _log.exception("a defect in what listens to Redis")
            finally:
                self._interruptions += 1
                self._link = None
                link.close()

    def _come_back(self) -> Link | None:
        backoff_s = BACKOFF_FIRST_S
        while not self._closing.is_set():
            try:
                self._link = self._subscribe()
            except Exception as error:  # noqa: BLE001 - the supervisor: the thread tries again
                _log.debug("the bus is away: %s", error)
                self._closing.wait(backoff_s)
                backoff_s = min(BACKOFF_LAST_S, 2 * backoff_s)
            else:
                _log.info("the bus carries again")
                return self._link
        return None

    def _listen(self, link: Link) -> None:
        """Take what comes until nothing more does. Raises `Unavailable`."""
        heard = monotonic()
        beat_at = 0.0
        while not self._closing.is_set():
            now = monotonic()
            if now >= beat_at:
                self._pipeline.beat((self._names.publish, self._beats, b""))
                beat_at = now + BEAT_S
            if answers := link.read(beat_at - now):
                heard = monotonic()
                self._take_in(answers)
            elif monotonic() - heard > ANSWER_MAX_S:
                raise Unavailable(f"nothing has come for {ANSWER_MAX_S:g} s")

    def _take_in(self, answers: list[Answer]) -> None:
        messages: list[bytes] = []
        last = self._last
        for answer in answers:
            if not isinstance(answer, list) or len(answer) != WORDS_OF_A_MESSAGE:
                raise Unavailable(f"no message, but {answer!r}")
            kind, channel, payload = answer
            if channel == self._inbox and kind in self._names.messages:
                sender, number = payload[:SENDER_BYTES], payload[SENDER_BYTES:HEADER_BYTES]
                if len(payload) >= HEADER_BYTES and number > last.get(sender, b""):
                    if sender not in last and len(last) >= SENDERS_MAX:
                        del last[next(iter(last))]
                    last[sender] = number
                    messages.append(payload[HEADER_BYTES:])
                else:
                    self._late += 1
            elif kind in self._names.ended:
                self._hand_over(messages)
                raise Unavailable("the slot of the inbox has moved")
        if messages:
            self._hand_over(messages)

    def _hand_over(self, messages: list[bytes]) -> None:
        size = sum(map(len, messages))
        with self._lock:
            room = INBOX_MAX_BYTES - self._waiting_bytes
            if size > room:
                came = len(messages)
                messages, size = _as_many_as_fit(messages, room)
                self._dropped += came - len(messages)
                self._interruptions += 1
            self._waiting += messages
            self._waiting_bytes += size
        self._received += len(messages)
        self._received_bytes += size
        # The loop may have ended before this daemon: then nobody receives.
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._arrived, idempotent=True)

    def _arrived(self) -> None:
        self._arrival.set()


def _as_many_as_fit(messages: list[bytes], room: int) -> tuple[list[bytes], int]:
    """The first of these, and how many bytes they have."""
    size = 0
    for index, message in enumerate(messages):
        if size + len(message) > room:
            return messages[:index], size
        size += len(message)
    return messages, size


class ChannelNames:
    """How channels are called and used; the two of an inbox share a slot of the cluster."""

    def __init__(self, prefix: str, *, sharded: bool) -> None:
        self._prefix = prefix
        self.publish = b"SPUBLISH" if sharded else b"PUBLISH"
        self.messages = frozenset({b"smessage" if sharded else b"message"})
        self.ended = frozenset({b"sunsubscribe" if sharded else b"unsubscribe"})

    def inbox(self, name: str) -> bytes:
        return f"{self._prefix}:bus:{{{name}}}".encode()

    def beats(self, name: str) -> bytes:
        return f"{self._prefix}:beats:{{{name}}}".encode()
