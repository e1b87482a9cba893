"""The Python client: `connect` to a broker, send, and iterate over what comes.

    async with connect("ws://127.0.0.1:7400/ws", token=token) as client:
        await client.send("g/12", "hi")
        async for event in client:
            print(event)

It runs on trio and imports nothing of the broker but the names and limits of the wire.
"""

from broker.client.accounts import login, refresh, register
from broker.client.client import Client, connect
from broker.client.errors import (
    BadAnswer,
    ClientClosed,
    CommandError,
    CommandTimeout,
    ConnectFailed,
    ConnectionEnded,
    Disconnected,
    NotLoggedIn,
    ParleyClientError,
)
from broker.client.model import (
    Ack,
    ConnectionChanged,
    Conversation,
    ConversationChanged,
    ConversationSettings,
    Credentials,
    DeliveredMark,
    Event,
    Group,
    Member,
    Message,
    OtherEvent,
    Page,
    Presence,
    ReadMark,
    Typing,
    UserPresence,
)

__all__ = [
    "Ack",
    "BadAnswer",
    "Client",
    "ClientClosed",
    "CommandError",
    "CommandTimeout",
    "ConnectFailed",
    "ConnectionChanged",
    "ConnectionEnded",
    "Conversation",
    "ConversationChanged",
    "ConversationSettings",
    "Credentials",
    "DeliveredMark",
    "Disconnected",
    "Event",
    "Group",
    "Member",
    "Message",
    "NotLoggedIn",
    "OtherEvent",
    "Page",
    "ParleyClientError",
    "Presence",
    "ReadMark",
    "Typing",
    "UserPresence",
    "connect",
    "login",
    "refresh",
    "register",
]
