"""Keeps the application's view complete: catches up after each connect, pulls what is missing.

What is missing is the cursors' knowledge; this asks the broker for it, and puts into the event
buffer what may be handed out. It never asks while the buffer is full.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import trio

from broker.client.buffer import EventBuffer
from broker.client.codec import Frame
from broker.client.cursors import Cursors
from broker.client.errors import BadAnswer, CommandError
from broker.client.limits import PULL_PAGE_ENTRIES, PULLS_AT_ONCE, SYNC_PAGE_CONVERSATIONS
from broker.client.model import Message, event, message
from broker.client.wakeup import Wakeup
from broker.wire.errors import Code

Ask = Callable[[str, dict[str, Any]], Awaitable[Frame]]

_UNREADABLE = frozenset({Code.FORBIDDEN, Code.NOT_FOUND})


class Follower:
    """Follows all conversations of the user. `ask` performs a command and returns its answer."""

    def __init__(self, cursors: Cursors, buffer: EventBuffer, ask: Ask) -> None:
        self.cursors = cursors
        self._buffer = buffer
        self._ask = ask
        self._lacking = Wakeup()

    def on_event(self, frame: Frame) -> None:
        """Take an event from the connection. Raises `BadAnswer`."""
        match frame.get("t"):
            case "msg":
                self._hand_out(self.cursors.live(message(frame), room=not self._buffer.full))
            case "behind":
                conv, head = frame.get("conv"), frame.get("head")
                if not isinstance(conv, str) or not isinstance(head, int):
                    raise BadAnswer("the broker sent a behind event without conv and head")
                self.cursors.behind(conv, head)
                self._lacking.set()
            case _:
                self._buffer.offer(event(frame))

    async def run(self) -> None:
        """Catch up, then pull whatever turns out to be missing, until cancelled.

        Raises what `ask` raises where the broker refuses for longer than it is asked again.
        """
        await self._catch_up()
        async with trio.open_nursery() as nursery:
            for _ in range(PULLS_AT_ONCE):
                nursery.start_soon(self._pull)

    async def _catch_up(self) -> None:
        if self.cursors.from_now:
            await self._sync({}, with_entries=False)
        else:
            try:
                await self._sync(self.cursors.positions(), with_entries=True)
            except CommandError as error:
                if error.code != Code.TOO_LARGE:
                    raise
                # With more cursors than one command holds, the heads say what to pull.
                await self._sync({}, with_entries=False)
        self._hand_out(self.cursors.resumed())

    async def _sync(self, cursors: dict[str, int], *, with_entries: bool) -> None:
        fields: dict[str, Any] = {"cursors": cursors, "limit": SYNC_PAGE_CONVERSATIONS}
        if not with_entries:
            # A broker that does not know this field sends some, and they are passed over.
            fields["entries"] = 0
        while True:
            await self._buffer.room()
            answer = await self._ask("sync", fields)
            for told in _list(answer, "conversations"):
                self._synced(told, with_entries=with_entries)
            # The mark belongs to the cursors it was given for: every page names the same.
            fields["next"] = answer.get("next")
            if not fields["next"]:
                return

    def _synced(self, told: Frame, *, with_entries: bool) -> None:
        try:
            conv, head, since = told["conv"], told["head"], told.get("since", 0)
        except KeyError as error:
            raise BadAnswer(f"the broker told of a conversation without {error}") from error
        entries = _list(told, "entries") if with_entries else []
        found = [message(entry, conv) for entry in entries]
        self._hand_out(self.cursors.synced(conv, head, since, found))

    async def _pull(self) -> None:
        while True:
            await self._buffer.room()
            lack = self.cursors.next_pull()
            if lack is None:
                await self._lacking.wait()
                continue
            conv, after = lack
            try:
                answer = await self._ask(
                    "history", {"conv": conv, "after": after, "limit": PULL_PAGE_ENTRIES}
                )
            except CommandError as error:
                if error.code not in _UNREADABLE:
                    raise
                self.cursors.gone(conv)
                continue
            found = [message(entry, conv) for entry in _list(answer, "entries")]
            head = answer.get("head")
            if not isinstance(head, int):
                raise BadAnswer("the broker sent a history without its head")
            self._hand_out(self.cursors.page(conv, found, head))

    def _hand_out(self, entries: Iterable[Message]) -> None:
        for entry in entries:
            self._buffer.put(entry)
        if self.cursors.lacking:
            self._lacking.set()


def _list(fields: Frame, name: str) -> list[Frame]:
    value = fields.get(name, [])
    if not isinstance(value, list):
        raise BadAnswer(f"the broker sent {name} that are no list")
    return value
