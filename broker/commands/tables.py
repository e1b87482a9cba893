"""Which handler a command has, before a connection is open and after. Tables, nothing else."""

from __future__ import annotations

from types import MappingProxyType

from actors.node import Table
from broker.commands import messages, reading
from broker.commands.opening import Opening
from broker.wire import commands as c


def opening_table(opening: Opening) -> Table:
    """What may be said before it is known who speaks."""
    return MappingProxyType(
        {
            c.Hello: opening.hello,
            c.Login: opening.login,
            c.Register: opening.register,
            c.Refresh: opening.refresh,
            c.Ping: opening.ping,
        }
    )


def open_table(opening: Opening) -> Table:
    """What may be said after."""
    return MappingProxyType(
        {
            c.Refresh: opening.refresh,
            c.Ping: opening.ping,
            c.Send: messages.send,
            c.Edit: messages.amend,
            c.Recall: messages.amend,
            c.Pin: messages.amend,
            c.Unpin: messages.amend,
            c.React: messages.amend,
            c.History: reading.history,
            c.Message: reading.message,
            c.Read: reading.read,
            c.Delivered: reading.read,
            c.Typing: reading.typing,
        }
    )
