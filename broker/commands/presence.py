"""Who is online: watching users, and looking once. What others may see, `actors.presence` knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.commands.conversations import session_of
from broker.commands.pages import Room
from broker.wire.commands import PresenceGet, PresenceUnwatch, PresenceWatch

if TYPE_CHECKING:
    from actors.connection import Connection


def presence_watch(connection: Connection, command: PresenceWatch) -> None:
    """Tell this connection of changes from now on; the answer is the state to start from."""
    # At once and not in the query: a connection that is gone by then could never be unwatched.
    connection.node.presence.watch(connection, command.users)
    session_of(connection).submit(connection, command, _look)


def presence_get(connection: Connection, command: PresenceGet) -> None:
    """The state now. Users who do not exist are left out."""
    session_of(connection).submit(connection, command, _look)


async def _look(connection: Connection, command: PresenceWatch | PresenceGet) -> None:
    # Who watches is told changes as this node learns of them, so that is what they begin with.
    watches = type(command) is PresenceWatch
    states = await connection.node.presence.look(command.users, as_stored=not watches)
    first = Room(connection).fill(states)
    connection.ok(command.id, users=first)
    done = len(first)
    while done < len(states):
        # Many long statuses need more than one frame; a client takes the rest as it takes changes.
        more = Room(connection).fill(states[done:])
        connection.push_event({"t": "presence", "users": more})
        done += len(more)


def presence_unwatch(connection: Connection, command: PresenceUnwatch) -> None:
    """No more changes of these users."""
    connection.node.presence.unwatch(connection, command.users)
    connection.ok(command.id)
