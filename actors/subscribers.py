"""Who gets a conversation's entries live, and the fan-out to them.

Shared bytes are written to outboxes by plain calls: one image per wire variant, and one for the
sessions of each sender, whose own entries carry their keys. Decides nothing and never waits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from actors.cluster.peer import batch_word
from actors.images import Batch, Drafts, Source, conversation_prefix, pair_of_images
from actors.memory import draft_again
from actors.wires import WIRES, Wire
from broker.wire.codec import JSON
from storage.records import Member, decode_entry

if TYPE_CHECKING:
    from actors.cluster.peer import Peer
    from actors.node import Node
    from actors.outbox import Outbox

FEW = 4
"""Up to this many subscribers of a wire are looked at one by one for being senders."""
IMAGE_MAX_BYTES = 256 * 1024
"""About the most payload in one image (one entry may be more). What is half sent must be sent to
its end, so an image must be small beside the marks at which an outbox drops others or is cut."""


class Subscribers:
    """The live outboxes of one conversation, by wire variant, and the nodes that have more of them.

    `peers` is empty where the conversation is another node's: its owner tells all.
    """

    __slots__ = ("_by_wire", "_node", "_prefix", "_source", "peers")

    def __init__(self, node: Node, source: Source) -> None:
        self._node = node
        self._source = source
        self._prefix = conversation_prefix(source.name)
        self._by_wire: tuple[tuple[Wire, dict[Outbox, None]], ...] = tuple(
            [(wire, {}) for wire in WIRES]
        )
        self.peers: dict[Peer, None] = {}

    def __len__(self) -> int:
        return sum(len(outboxes) for _, outboxes in self._by_wire) + len(self.peers)

    def __iter__(self) -> Iterator[Outbox]:
        """A snapshot: outboxes may leave while they are gone through."""
        return iter([outbox for _, outboxes in self._by_wire for outbox in outboxes])

    def add(self, outbox: Outbox) -> None:
        """Entries from the next one on, unless the outbox is behind here or closing."""
        if outbox.closing or (outbox.behind and self._source.name in outbox.behind):
            return
        self._by_wire[outbox.wire.index][1][outbox] = None

    def discard(self, outbox: Outbox) -> None:
        self._by_wire[outbox.wire.index][1].pop(outbox, None)

    # Other nodes: each is told once, for all members who are connected there

    def add_peer(self, peer: Peer, user: int, *, doubt: bool = False) -> None:
        """A member at another node gets entries from the next one on.

        `doubt`: and may have missed some before it.
        """
        self.peers[peer] = None
        peer.join(self._source, user, doubt=doubt)  # type: ignore[arg-type]

    def discard_peer(self, peer: Peer, user: int, *, tell: bool = True) -> None:
        if peer.part(self._source, user, tell=tell):  # type: ignore[arg-type]
            self.peers.pop(peer, None)

    def forget_peer(self, peer: Peer) -> None:
        """The node is gone."""
        self.peers.pop(peer, None)

    def close_peers(self, *, tell: bool) -> None:
        """The conversation is not active any more."""
        for peer in self.peers:
            peer.close(self._source, tell=tell)  # type: ignore[arg-type]
        self.peers.clear()

    def count(self) -> int:
        """How many are told live: connections here, and members elsewhere."""
        elsewhere = sum(peer.followers_of(self._source) for peer in self.peers)  # type: ignore
        return len(self) - len(self.peers) + elsewhere

    # Entries

    def tell_stored(self, payloads: Sequence[bytes]) -> None:
        """Entries as the store has them, in this very pass, which must not overtake or be overtaken
        by what is written directly."""
        drafts = Drafts()
        for payload in payloads:
            draft_again(drafts, decode_entry(payload), payload)
        self._node.flusher.settle()
        self.fan_out(drafts)
        self._node.flusher.settle()

    def fan_out(self, drafts: Drafts) -> None:
        """Write new entries to every subscriber."""
        payloads = drafts.payloads
        if self.peers:
            word = batch_word(self._source.name, drafts)
            for peer in self.peers:
                peer.say_encoded(word)
        if len(payloads) == 1:
            self._fan_out_one(drafts)
        elif sum(map(len, payloads)) <= IMAGE_MAX_BYTES:
            self._fan_out_batch(drafts)
        else:
            self._fan_out_in_parts(drafts)

    def _fan_out_in_parts(self, drafts: Drafts) -> None:
        start = size = 0
        for index, payload in enumerate(drafts.payloads):
            size += len(payload)
            if size > IMAGE_MAX_BYTES and index > start:
                self._fan_out_batch(drafts.part(start, index))
                # Else who sent something in a later part would get that part first.
                self._node.flusher.settle()
                start, size = index, len(payload)
        self._fan_out_batch(drafts.part(start, len(drafts.payloads)))

    def _fan_out_batch(self, drafts: Drafts) -> None:
        reached = 0
        batch: Batch | None = None
        for wire, outboxes in self._by_wire:
            listening = len(outboxes)
            if not listening:
                continue
            reached += listening
            if batch is None:
                batch = Batch(self._prefix, drafts, self._source)
            if listening <= FEW:
                self._write_to_few(batch, wire, outboxes)
            else:
                self._write_to_many(batch, wire, outboxes)
        self._node.counters.delivered += reached * len(drafts.payloads)

    def _fan_out_one(self, drafts: Drafts) -> None:
        """A batch of one, to few: what most direct conversations do in most turns."""
        sender = drafts.senders[0]
        reached = 0
        for wire, outboxes in self._by_wire:
            count = len(outboxes)
            if not count:
                continue
            reached += count
            if count > FEW or wire.codec is JSON:
                self._write_to_many(Batch(self._prefix, drafts, self._source), wire, outboxes)
                continue
            plain, keyed = pair_of_images(wire, self._prefix, drafts, self._source)
            for outbox in tuple(outboxes):
                image = keyed if outbox.user == sender else plain
                if outbox.pending is None:
                    outbox.pending = image
                    self._node.flusher.dirty.append(outbox)
                else:
                    outbox.push(image)
        self._node.counters.delivered += reached

    def _write_to_few(self, batch: Batch, wire: Wire, outboxes: dict[Outbox, None]) -> None:
        """Look at each for being a sender; the outboxes may leave as they are written to."""
        senders = batch.senders
        for outbox in tuple(outboxes):
            user = outbox.user
            outbox.push(batch.keyed(wire, user) if user in senders else batch.plain(wire))

    def _write_to_many(self, batch: Batch, wire: Wire, outboxes: dict[Outbox, None]) -> None:
        """One image for all but the senders' own sessions."""
        own = [
            connection
            for user in batch.senders
            for connection in self._node.registry.connections_of(user)
            if connection in outboxes
        ]
        for connection in own:
            connection.push(batch.keyed(wire, connection.user))
            outboxes.pop(connection, None)
        self._node.flusher.broadcast(list(outboxes), batch.plain(wire))
        for connection in own:
            self.add(connection)

    # Other events

    def tell(self, event: Any, *, besides: Any = None, ephemeral: bool = False) -> None:
        """An event that is no entry; an ephemeral one may be missed by those who are slow."""
        for peer in self.peers:
            peer.event(self._source.name, event, besides, ephemeral)
        for wire, outboxes in self._by_wire:
            if outboxes:
                data = wire.wrap(wire.codec.encode(event))
                for outbox in tuple(outboxes):
                    if outbox is besides:
                        continue
                    if ephemeral:
                        outbox.push_ephemeral(data)
                    else:
                        outbox.push(data)

    def let_out(self, members: Mapping[int, Member], told: int) -> None:
        """Of those here who were told up to `told`: who went, or came again, after it.

        What was said in between is not for them.
        """
        for outbox in self:
            member = members.get(outbox.user)
            if member is None:
                outbox.fall_behind(self._source)  # the answer to their pull says that they are out
                outbox.no_longer_behind(self._source.name)
            elif member.since > told:
                self.discard(outbox)

    def fall_behind(self) -> None:
        """Nobody is live any more: each is told, and pulls what may be missing."""
        for peer in self.peers:
            peer.behind(self._source)  # type: ignore[arg-type]
        self.fall_behind_here()

    def fall_behind_here(self, besides: Collection[Outbox] = ()) -> None:
        """Likewise, of the connections to this node."""
        for outbox in self:
            if outbox not in besides:
                outbox.fall_behind(self._source)
