"""Events on their way from the connection to the application: bounded, in order, each taken once.

Putting never waits: the connection asks `full` and stops reading instead.
"""

from __future__ import annotations

from collections import deque

from broker.client.errors import ParleyClientError
from broker.client.model import Event, Message
from broker.client.wakeup import Wakeup


class EventBuffer:
    """The events that the application has not taken yet."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"an event buffer holds at least 1 event, not {limit}")
        self.limit = limit
        self._events: deque[Event] = deque()
        self._error: ParleyClientError | None = None
        self._filled = Wakeup()
        self.emptied = Wakeup()
        """Given when a full buffer has room again."""

    @property
    def full(self) -> bool:
        """Whether the application must take some before more may come."""
        return len(self._events) >= self.limit

    def put(self, event: Event) -> None:
        """Add an event, even beyond the limit: an answer's page is taken whole."""
        self._events.append(event)
        self._filled.set()

    def offer(self, event: Event) -> None:
        """Add an event that may be lost, if there is room."""
        if not self.full:
            self.put(event)

    def end(self, error: ParleyClientError) -> None:
        """No event will come again: when all are taken, `get` raises `error`."""
        self._error = error
        self._filled.set()

    async def get(self) -> Event:
        """Take the next event. Raises what `end` was given once nothing is left.

        It yields to other tasks only when it has to wait, which is every `limit` events at least.
        """
        while not self._events:
            if self._error is not None:
                raise self._error
            await self._filled.wait()
        event = self._events.popleft()
        if len(self._events) == self.limit - 1:
            self.emptied.set()
        return event

    async def room(self) -> None:
        """Wait until the buffer is not full."""
        while self.full:
            await self.emptied.wait()

    def before(self, positions: dict[str, int]) -> dict[str, int]:
        """`positions` of conversations, set back to before the entries that nobody took yet."""
        for event in reversed(self._events):
            if isinstance(event, Message):
                positions[event.conv] = event.seq - 1
        return positions
