"""Sessions end elsewhere: by a stolen refresh token, a new password, an operator beside the broker.

One task looks now and then whether the sessions of the open connections are still good, and at once
when there is reason to. A connection whose session has ended is told so and closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from actors.faults import log_outage
from actors.parking import Parking
from broker.commands.account import vouch
from broker.wire.errors import ByeCode, Refusal
from storage.errors import Unavailable

if TYPE_CHECKING:
    from actors.node import Node

PERIOD_S = 30.0
"""How long a session may outlive its end when nothing pointed to it."""
PAUSE_S = 1.0
"""Between two looks, however much reason there is: anybody may send bad refresh tokens."""
SESSIONS_AT_ONCE = 500


class _Seat(Struct, frozen=True, gc=False):
    user: int
    session: str
    generation: int


class Revocation:
    """`run` belongs to the tasks of the node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._parking = Parking()

    def look_soon(self) -> None:
        """There is reason to look."""
        self._parking.unpark()

    async def run(self) -> None:
        """Look for ever. A store that fails is asked again the next time."""
        while True:
            with trio.move_on_after(PERIOD_S):
                await self._parking.park()
            try:
                await self.look()
            except Unavailable as error:
                log_outage(error)
            await trio.sleep(PAUSE_S)

    async def look(self) -> None:
        """Close the connections whose session has ended. Raises `Unavailable`."""
        seats = [
            (connection, _Seat(connection.user, connection.session_id, connection.generation))
            for connection in self._node.connections
            if connection.session is not None and not connection.closing
        ]
        for start in range(0, len(seats), SESSIONS_AT_ONCE):
            some = seats[start : start + SESSIONS_AT_ONCE]
            standings = await vouch(self._node.store, [seat for _, seat in some])
            for (connection, _), standing in zip(some, standings, strict=True):
                if isinstance(standing, Refusal):
                    connection.bye(ByeCode.SESSION_REVOKED)
