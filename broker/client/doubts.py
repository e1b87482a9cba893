"""Looks into the log for what may have been sent already, before it is sent again.

The broker knows a key for its conversation's newest entries only, and after a long outage there may
be more. The pages that are read here are for this purpose alone: they never reach the application's
events, so that no full buffer is in the way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from broker.client.codec import Frame
from broker.client.errors import BadAnswer, CommandError
from broker.client.limits import LOOKS_AT_ONCE, PULL_PAGE_ENTRIES, RESEND_WITHIN_ENTRIES
from broker.client.model import Message, message
from broker.client.session import Session

Ask = Callable[[str, dict[str, Any]], Awaitable[Frame]]


class Doubts:
    """Settles the doubtful calls of a session. `ask` performs a command and returns its answer;
    `output` is called when the session has something to write."""

    def __init__(self, session: Session, ask: Ask, output: Callable[[], None]) -> None:
        self._session = session
        self._ask = ask
        self._output = output

    async def run(self) -> None:
        """Look whenever there is a doubt, until cancelled.

        Raises what `ask` raises where the broker refuses for longer than it is asked again.
        """
        async with trio.open_nursery() as nursery:
            for _ in range(LOOKS_AT_ONCE):
                nursery.start_soon(self._look)

    async def _look(self) -> None:
        while True:
            conv = self._session.next_held()
            if conv is None:
                await self._session.holding.wait()
                continue
            # More may have come while some were looked for.
            while self._session.doubts(conv):
                await self._settle(conv)
            self._session.release(conv)
            self._output()

    async def _settle(self, conv: str) -> None:
        """Find the entries of all calls that are doubtful now, or show that there are none."""
        calls = self._session.doubts(conv)
        after = min(call.floor for call in calls)
        # Who gives up waiting is no longer in doubt: the calls' time-outs bound the look.
        while calls := [call for call in self._session.doubts(conv) if call in calls]:
            try:
                entries, head = await self._page(conv, after)
            except CommandError as error:
                if error.retry:
                    raise
                # Who may not read may not write: the broker says so when it is sent again.
                entries, head = [], after
            after = entries[-1].seq if entries else max(after, head)
            own = {entry.key: entry for entry in entries if entry.sender == self._session.user}
            for call in calls:
                if call.key in own:
                    self._session.found(call, own[call.key])
                elif head - after <= RESEND_WITHIN_ENTRIES:
                    self._session.not_found(call, after)

    async def _page(self, conv: str, after: int) -> tuple[list[Message], int]:
        """The entries after a seq, and the newest seq. Raises `CommandError`, `BadAnswer`."""
        fields = {"conv": conv, "after": after, "limit": PULL_PAGE_ENTRIES}
        answer = await self._ask("history", fields)
        entries, head = answer.get("entries"), answer.get("head")
        if not isinstance(entries, list) or not isinstance(head, int):
            raise BadAnswer("the broker sent a history without its entries or head")
        return [message(entry, conv) for entry in entries], head
