"""Who is here: sessions by user, conversations in use by name, and who is interested in which.

The interest index (user → active conversations that they are a member of) is what lets a new
connection find its conversations without a look into the store; a conversation that is not active
has nothing to say. Plain calls, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakValueDictionary

import trio

from actors.cluster.caller import Caller
from actors.cluster.follower import Follower
from actors.conversation import Conversation
from actors.session import Session
from storage.names import slot_of

if TYPE_CHECKING:
    from actors.cluster.peer import Peer
    from actors.connection import Connection
    from actors.node import Node

Source = Conversation | Follower


class Registry:
    def __init__(self, node: Node) -> None:
        self._node = node
        self.sessions: dict[int, Session] = {}
        self.hidden: set[int] = set()
        """Those with a session whose being here nobody may learn."""
        self.elsewhere: dict[int, dict[Peer, bool]] = {}
        """Users with a session on other nodes, and whether they hide it there."""
        self.conversations: dict[str, Conversation] = {}
        self.leaving: dict[Conversation, None] = {}
        """Conversations that finish what is under way, and take nothing new."""
        self._interest: dict[int, dict[Source, None]] = {}
        self._changing: WeakValueDictionary[int, trio.Lock] = WeakValueDictionary()

    # Sessions

    def attach(self, connection: Connection, user: int, *, hidden: bool) -> Session:
        """Take up an authenticated connection: session, presence, live conversations."""
        session = self.sessions.get(user)
        if session is None:
            session = self.sessions[user] = Session(self._node, user)
            if self._node.cluster is not None:
                self._node.cluster.here.arrived({user: hidden})
                # It may have changed since `hidden` was looked up.
                hidden = self._node.cluster.here.hides(user) is True
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
            if self._node.cluster is not None:
                self._node.cluster.here.withdraw([session.user])

    def online(self, user: int) -> bool:
        """Whether the user has a session, here or elsewhere."""
        return user in self.sessions or user in self.elsewhere

    def hide(self, user: int, hidden: bool) -> None:
        """Whether others may learn that the user is here."""
        if hidden and user in self.sessions:
            self.hidden.add(user)
        else:
            self.hidden.discard(user)

    def seems_online(self, user: int) -> bool:
        """What others may be told."""
        if user in self.sessions and user not in self.hidden:
            return True
        return user in self.elsewhere and not all(self.elsewhere[user].values())

    # Sessions elsewhere

    def arrived(self, peer: Peer, user: int, *, hidden: bool) -> None:
        """A user has a session at another node: live conversations reach there too."""
        peers = self.elsewhere.setdefault(user, {})
        before = peers.get(peer, True)
        peers[peer] = hidden
        for source in self._interest.get(user, ()):
            source.reach(peer, user)
        if before is not hidden:
            self._node.presence.changed(user)

    def departed(self, peer: Peer, user: int, *, hidden: bool, seen_ms: int = 0) -> None:
        """Undo `arrived`."""
        peers = self.elsewhere.get(user)
        if peers is None or peers.pop(peer, None) is None:
            return
        if not peers:
            del self.elsewhere[user]
        for source in self._interest.get(user, ()):
            if type(source) is Conversation:
                source.subscribers.discard_peer(peer, user, tell=False)
        if not hidden:
            self._node.presence.changed(user, seen_ms)

    def peers_of(self, user: int) -> Iterable[Peer]:
        """The nodes where the user has a session, besides this one."""
        return self.elsewhere.get(user, ())

    def tell(
        self, users: Iterable[int], event: Any, *, besides: object = None, behind: str = ""
    ) -> None:
        """An event for all connections of these users but one, wherever they are.

        `behind`: only for those that are behind in that conversation.
        """
        elsewhere: dict[Peer, list[int]] = {}
        for user in users:
            for connection in self.connections_of(user):
                if connection is not besides and (
                    not behind or behind in (connection.behind or ())
                ):
                    connection.push_event(event)
            for peer in self.peers_of(user):
                elsewhere.setdefault(peer, []).append(user)
        caller = besides if type(besides) is Caller else None
        for peer, there in elsewhere.items():
            peer.tell(there, event, caller, behind)

    def changing(self, user: int) -> trio.Lock:
        """Held by who reads and then replaces something of the user's own."""
        lock = self._changing.get(user)
        if lock is None:
            lock = self._changing[user] = trio.Lock()
        return lock

    def connections_of(self, user: int) -> list[Connection]:
        session = self.sessions.get(user)
        return session.connections if session is not None else []

    # Conversations

    def conversation(self, name: str) -> Conversation:
        """The actor of a conversation, taken up if it is not active. The name must be valid.

        Where it is another node's: what sends commands there (`actors.cluster.route.Remote`), which
        is all that may be done with it.
        """
        conversation = self.conversations.get(name)
        if conversation is None:
            if self._node.cluster is not None:
                remote = self._node.cluster.route(name)
                if remote is not None:
                    return cast(Conversation, remote)
            conversation = self.conversations[name] = Conversation(self._node, name)
            self._node.turn.load(conversation)
        return conversation

    def owns(self, name: str) -> bool:
        """Whether a conversation may be active on this node."""
        cluster = self._node.cluster
        return cluster is None or cluster.placement.epoch_of(slot_of(name)) > 0

    def live(self, name: str) -> Source | None:
        """What tells the connections here of a conversation, if it is active anywhere."""
        active = self.conversations.get(name)
        cluster = self._node.cluster
        if cluster is None or (active is not None and active.loaded):
            return active
        leaving = next((each for each in self.leaving if each.name == name), None)
        return leaving or cluster.following.followers.get(name) or active

    def adopt(self, conversation: Conversation) -> None:
        """Register a conversation that was just made and has nothing to load."""
        self.conversations[conversation.name] = conversation

    def forget(self, conversation: Conversation) -> None:
        """Its actor ends; the next use takes it up anew from the store."""
        if self.conversations.get(conversation.name) is conversation:
            del self.conversations[conversation.name]
        self.leaving.pop(conversation, None)
        for user in conversation.members:
            self.lost_interest(user, conversation)

    def withdraw(self, conversation: Conversation) -> None:
        """It takes no new commands; what is under way is finished, and its members are told."""
        if self.conversations.get(conversation.name) is conversation:
            del self.conversations[conversation.name]
        conversation.ended = True
        self.leaving[conversation] = None

    def interested(self, user: int, conversation: Source) -> None:
        self._interest.setdefault(user, {})[conversation] = None

    def followers_of(self, user: int) -> list[Follower]:
        """Conversations of other nodes that are told to the user here."""
        return [source for source in self._interest.get(user, ()) if type(source) is Follower]

    def lost_interest(self, user: int, conversation: Source) -> None:
        interests = self._interest.get(user)
        if interests is not None:
            interests.pop(conversation, None)
            if not interests:
                del self._interest[user]
