"""Who is here: sessions by user, conversations in use by name, and who is interested in which.

The interest index (user → active conversations that they are a member of) is what lets a new
connection find its conversations without a look into the store; a conversation that is not active
has nothing to say. Plain calls, no I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.conversation import Conversation
from actors.session import Session

if TYPE_CHECKING:
    from actors.connection import Connection
    from actors.ledger import Ledger
    from actors.node import Node


class Registry:
    def __init__(self, node: Node) -> None:
        self._node = node
        self.sessions: dict[int, Session] = {}
        self.hidden: set[int] = set()
        """Those with a session whose being here nobody may learn."""
        self.conversations: dict[str, Conversation] = {}
        self._interest: dict[int, dict[Ledger, None]] = {}

    # Sessions

    def attach(self, connection: Connection, user: int, *, hidden: bool) -> Session:
        """Take up an authenticated connection: session, presence, live conversations."""
        session = self.sessions.get(user)
        if session is None:
            session = self.sessions[user] = Session(self._node, user)
            self.hide(user, hidden)
            if not hidden:
                self._node.presence.changed(user)
        session.attach(connection)
        for conversation in self._interest.get(user, ()):
            conversation.subscribe(connection)
        return session

    def detach(self, connection: Connection) -> None:
        """Undo `attach`."""
        if connection.session is None:
            return
        for conversation in self._interest.get(connection.user, ()):
            conversation.unsubscribe(connection)
        connection.session.detach(connection)

    def end_session(self, session: Session) -> None:
        """The user's last connection is gone."""
        if self.sessions.get(session.user) is session:
            del self.sessions[session.user]
            self._node.presence.left(session.user, hidden=session.user in self.hidden)
            self.hidden.discard(session.user)

    def online(self, user: int) -> bool:
        return user in self.sessions

    def hide(self, user: int, hidden: bool) -> None:
        """Whether others may learn that the user is here."""
        if hidden and user in self.sessions:
            self.hidden.add(user)
        else:
            self.hidden.discard(user)

    def seems_online(self, user: int) -> bool:
        """What others may be told."""
        return user in self.sessions and user not in self.hidden

    def connections_of(self, user: int) -> list[Connection]:
        session = self.sessions.get(user)
        return session.connections if session is not None else []

    # Conversations

    def conversation(self, name: str) -> Conversation:
        """The actor of a conversation, taken up if it is not active. The name must be valid."""
        conversation = self.conversations.get(name)
        if conversation is None:
            conversation = self.conversations[name] = Conversation(self._node, name)
            self._node.turn.load(conversation)
        return conversation

    def adopt(self, conversation: Conversation) -> None:
        """Register a conversation that was just made and has nothing to load."""
        self.conversations[conversation.name] = conversation

    def forget(self, conversation: Conversation) -> None:
        """Its actor ends; the next use takes it up anew from the store."""
        if self.conversations.get(conversation.name) is conversation:
            del self.conversations[conversation.name]
        for user in conversation.members:
            self.lost_interest(user, conversation)

    def interested(self, user: int, conversation: Ledger) -> None:
        self._interest.setdefault(user, {})[conversation] = None

    def lost_interest(self, user: int, conversation: Ledger) -> None:
        interests = self._interest.get(user)
        if interests is not None:
            interests.pop(conversation, None)
            if not interests:
                del self._interest[user]
