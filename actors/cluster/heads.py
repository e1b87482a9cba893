"""How far conversations are that a writer has in hand: only the writer knows, here or elsewhere.

A user asks, and is told no more than a member may know at that moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from actors.cluster import words as w
from storage.errors import Unavailable
from storage.names import slot_of
from storage.records import Head

if TYPE_CHECKING:
    from actors.cluster.caller import Caller
    from actors.cluster.cluster import Cluster
    from actors.cluster.peer import Peer
    from actors.conversation import Conversation
    from actors.node import Node
    from broker.wire.errors import Refusal


TIMEOUT_S = 5.0
"""For all nodes to answer; and at one that is asked, for its conversations to be taken up."""
ASK_AGAIN_S = 0.25


class HeadQuery(Struct):
    """A command of no client: what is your head?"""

    id: int = 0


class MemberHead(Struct):
    """A head, and since which entry who asked is a member; None: they are none."""

    head: Head
    since: int | None


def head_for(conv: Conversation, user: int) -> MemberHead:
    """As the conversation stands: no entry that is not durable. Who is being put out is out."""
    member = conv.members.get(user)
    return MemberHead(Head(conv.head, conv.ts), member.since if member is not None else None)


class Asker:
    """Gathers the heads of a user's conversations of this node; to them it is as a connection.

    A conversation that is not active is taken up. One that fails, or goes to another node
    meanwhile, is left out.
    """

    def __init__(self, node: Node, user: int, convs: Sequence[str]) -> None:
        self.node = node
        self.user = user
        self.closing = False
        self.heads: dict[str, MemberHead] = {}
        self._left = len(convs)
        self._done = trio.Event()
        for conv in convs:
            actor = node.registry.conversations.get(conv)
            if actor is not None and actor.loaded:
                self.heads[conv] = head_for(actor, user)
                self._count()
            elif not node.registry.owns(conv) or not self._post(node.registry.conversation(conv)):
                self._count()
        if not convs:
            self._done.set()

    def _post(self, conversation: Conversation) -> bool:
        return conversation.post(self, HeadQuery(), _tell_head)  # type: ignore[arg-type]

    async def wait(self) -> dict[str, MemberHead]:
        """What is known when all have answered."""
        await self._done.wait()
        return self.heads

    def _count(self) -> None:
        self._left -= 1
        if self._left <= 0:
            self._done.set()

    # What a conversation calls of a connection

    def answer_all(self, replies: list[tuple[str, MemberHead]]) -> None:
        for conv, head in replies:
            self.heads[conv] = head
            self._count()

    def refuse(self, command_id: int | None, refusal: Refusal) -> None:
        self._count()

    def dispatch_again(self, command: HeadQuery) -> None:
        self._count()

    def unblock(self) -> None:
        """Nobody was held back."""


def _tell_head(conv: Conversation, connection: Caller, command: HeadQuery) -> None:
    reply = conv.name, head_for(conv, connection.user)
    conv.answer(connection, command.id, reply)  # type: ignore[arg-type]


class Heads:
    """Questions to other nodes, and the answers to theirs."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._tags = count(1)
        self._answers: dict[int, tuple[trio.Event, list[tuple[str, int, int, int]]]] = {}

    async def of(self, user: int, convs: Sequence[str]) -> dict[str, MemberHead]:
        """How far these are for a user; only their writers know. Raises `Unavailable`."""
        heads: dict[str, MemberHead] = {}
        with trio.move_on_after(TIMEOUT_S):
            while missing := [conv for conv in convs if conv not in heads]:
                heads |= await self._ask(user, missing)
                if len(heads) < len(convs):
                    self._cluster.placement.look_soon()
                    await trio.sleep(ASK_AGAIN_S)
        if len(heads) < len(convs):
            raise Unavailable("the node of a conversation cannot be reached")
        return heads

    async def _ask(self, user: int, convs: Sequence[str]) -> dict[str, MemberHead]:
        placement, peers = self._cluster.placement, self._cluster.peers
        own: list[str] = []
        others: dict[Peer, list[str]] = {}
        for conv in convs:
            slot = slot_of(conv)
            inbox = placement.owner_inbox(slot)
            if placement.epoch_of(slot):
                own.append(conv)
            elif inbox is not None and inbox in peers:
                others.setdefault(peers[inbox], []).append(conv)
        heads: dict[str, MemberHead] = {}
        async with trio.open_nursery() as nursery:
            for peer, asked in others.items():
                nursery.start_soon(self._ask_peer, peer, user, asked, heads)
            if own:
                heads |= await Asker(self._cluster.node, user, own).wait()
        return heads

    async def _ask_peer(
        self, peer: Peer, user: int, convs: list[str], heads: dict[str, MemberHead]
    ) -> None:
        tag = next(self._tags)
        waiting = self._answers[tag] = (trio.Event(), [])
        try:
            peer.say(w.AskHeads(tag, user, convs))
            self._cluster.node.flusher.kick()
            with trio.move_on_after(TIMEOUT_S / 4):
                await waiting[0].wait()
        finally:
            del self._answers[tag]
        heads |= {
            conv: MemberHead(Head(seq, ts), since if since >= 0 else None)
            for conv, seq, ts, since in waiting[1]
        }

    async def answer(self, peer: Peer, word: w.AskHeads) -> None:
        """Tell a peer how far conversations of this node are."""
        asker = Asker(self._cluster.node, word.user, word.convs)
        with trio.move_on_after(TIMEOUT_S):
            await asker.wait()
        heads = [
            (conv, found.head.seq, found.head.ts, -1 if found.since is None else found.since)
            for conv, found in asker.heads.items()
        ]
        if not self._cluster.placement.good():
            heads = []  # others may have written more
        peer.say(w.Heads(word.tag, heads))
        self._cluster.node.flusher.kick()

    def told(self, word: w.Heads) -> None:
        """A peer's answer."""
        waiting = self._answers.get(word.tag)
        if waiting is not None:
            waiting[1].extend(word.heads)
            waiting[0].set()
