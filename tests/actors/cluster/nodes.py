"""Several nodes of one cluster in a test's own trio run: real actors, shared stores in memory.

Clients are socket pairs, as in `tests.actors.world`. The network does what a test tells it to.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from actors.cluster.cluster import Cluster
from actors.cluster.hearing import hear
from actors.cluster.peer import Peer as NodePeer
from actors.cluster.words import AnyWord, Batch, Envelope, Join, decode
from actors.connection import Connection
from actors.images import Drafts, key_bytes
from actors.node import Node, Options
from actors.sweeper import run_sweeper
from actors.wires import TCP_MSGPACK, Wire
from broker.commands import groups, membership, messages, presence, reading, sync
from broker.wire import commands as c
from storage.memory import MemoryLeases, MemoryNetwork, MemoryPresence
from storage.names import SLOTS, slot_of
from storage.records import Append, Commit, Entry, SlotRecord, User, encode_entry
from tests.actors.world import TABLE, GatedStore
from tests.helpers.links import in_step
from tests.helpers.peer import Peer, TcpCarrier

CONV = "d/1/2"
LEASE_MS = 2_000
USERS = 40
LOOKS_MAX = 10_000
ONE_NODE_MAX_S = 10.0
"""Nothing in a test of one node takes long."""
LOOK_AGAIN_S = 0.01

COMMANDS: dict[type[c.Command], Callable[[Any, Any], None]] = {
    **TABLE,
    c.Message: reading.message,
    c.Delivered: reading.read,
    c.React: messages.amend,
    c.Sync: sync.sync,
    c.GroupCreate: groups.group_create,
    c.GroupGet: groups.group_get,
    c.GroupInvite: membership.group_invite,
    c.GroupKick: membership.group_kick,
    c.GroupJoin: membership.group_join,
    c.GroupLeave: membership.group_leave,
    c.GroupSet: groups.group_set,
    c.PresenceGet: presence.presence_get,
}


class Network(MemoryNetwork):
    """`cut` are ways (sender, receiver) that lose everything; `lose` may pick single envelopes."""

    def __init__(self) -> None:
        super().__init__()
        self.cut: set[tuple[str, str]] = set()
        self.lose: Callable[[Envelope, str], bool] | None = None
        self.held: list[tuple[str, bytes]] | None = None
        self.carried: list[Envelope] = []

    def deliver(self, to: str, data: bytes) -> bool:
        envelope = decode(data)
        if (envelope.sender, to) in self.cut or (self.lose and self.lose(envelope, to)):
            return True
        self.carried.append(envelope)
        if self.held is not None:
            self.held.append((to, data))
            return True
        return super().deliver(to, data)

    def hold(self) -> None:
        """Carry nothing for now."""
        self.held = []

    def release(self) -> None:
        held, self.held = self.held, None
        for to, data in held or ():
            super().deliver(to, data)

    def words(self, *types: type[AnyWord]) -> list[AnyWord]:
        """All words of these types that were carried."""
        return [w for envelope in self.carried for w in envelope.words if isinstance(w, types)]

    def part(self, *inboxes: str, both: bool = True) -> None:
        """Cut the way from the first to the second (and back)."""
        one, other = inboxes
        self.cut.add((one, other))
        if both:
            self.cut.add((other, one))

    @asynccontextmanager
    async def losing(self, sender: str, receiver: str) -> AsyncIterator[None]:
        """What is said in the block is lost on its way from the one to the other."""
        self.part(sender, receiver, both=False)
        yield
        await trio.sleep(0.1)
        self.cut.clear()


class ClusterNode:
    """One of them."""

    def __init__(self, nodes: Nodes, name: str, *, lease_ms: int = LEASE_MS) -> None:
        self.nodes = nodes
        self.inbox = f"in-{name}"
        self.node = Node(nodes.store, options=Options(**nodes.options), name=name)
        self.node.opening_table = {}
        self.node.open_table = COMMANDS
        self.cluster = Cluster(
            self.node,
            name=name,
            inbox=self.inbox,
            leases=nodes.leases,
            bus=nodes.network.bus(self.inbox),
            presence=nodes.presence,
            lease_ms=lease_ms,
        )
        self.node.cluster = self.cluster
        self.scope = trio.CancelScope()
        self.clients = trio.CancelScope()

    @property
    def placement(self) -> Any:
        return self.cluster.placement

    async def run(self, together: bool) -> None:
        """Everything of a node but its listeners; `together`: as one of many."""
        node = self.node
        with self.scope:
            async with trio.open_nursery() as tasks:
                node.tasks = tasks
                for task in (
                    node.turn.run,
                    node.turn.run_loader,
                    node.flusher.run,
                    node.reader.run,
                    node.presence.run,
                ):
                    tasks.start_soon(task)
                tasks.start_soon(run_sweeper, node)
                if together:
                    self.cluster.start(tasks)
                else:
                    self.placement._good_until = float("inf")  # nobody else is there to doubt it
                    tasks.start_soon(self.cluster.here.run)
                await trio.sleep_forever()

    async def leave(self) -> None:
        """End in order, as far as it concerns the others."""
        await self.placement.leave()
        await self.cluster.leave()
        self.nodes.running.remove(self)
        self.nodes.network.leave(self.inbox)
        self.scope.cancel()

    def kill(self) -> None:
        """All at once; what it says no more reaches nobody."""
        self.nodes.network.leave(self.inbox)
        self.scope.cancel()
        self.nodes.running.remove(self)

    def peer(self, other: ClusterNode) -> NodePeer:
        """The other, as this one knows it."""
        return self.cluster.peers[other.inbox]

    def owns(self, conv: str) -> bool:
        return self.cluster.placement.epoch_of(slot_of(conv)) > 0

    def own(self, conv: str, epoch: int) -> None:
        """From now on this one writes it; what it follows of it is not taken up yet."""
        slot = slot_of(conv)
        self.placement.owned[slot] = epoch
        self.placement.table[slot] = SlotRecord(slot, self.placement.me.incarnation, epoch)
        self.placement._good_until = float("inf")

    def conv(self, *, user: int = 1, skip: int = 0) -> str:
        """A direct conversation of a user that this node writes."""
        others = [other for other in range(user + 1, USERS + 1) if self.owns(f"d/{user}/{other}")]
        return f"d/{user}/{others[skip]}"

    async def join(self, user: int, *, wire: Wire = TCP_MSGPACK) -> Peer:
        """An open connection of a user to this node, which all nodes know of."""
        _, peer = await self.join_connection(user, wire=wire)
        return peer

    async def join_connection(
        self, user: int, *, wire: Wire = TCP_MSGPACK, hidden: bool = False
    ) -> tuple[Connection, Peer]:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        connection = Connection(self.node, ours, wire=wire, tls=None, peer="pair:0")
        self.node.tasks.start_soon(connection.run)
        await trio.testing.wait_all_tasks_blocked()
        await self.cluster.here.announce({user: hidden})
        connection.opened(user, f"session {user}", "", hidden=hidden)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
        peer = Peer(TcpCarrier(stream))
        peer.user = user
        return connection, peer


class Owner:
    """Who writes a conversation, by what it says of it to a node that is alone."""

    def __init__(self, n: ClusterNode, inbox: str, conv: str = CONV) -> None:
        self._n = n
        self._conv = conv
        self.peer: NodePeer = n.cluster.peer(inbox)

    def say(self, *words: AnyWord) -> None:
        for word in words:
            hear(self._n.cluster, self.peer, word)
        self._n.node.turn.wake()
        self._n.node.flusher.kick()

    def join(
        self,
        epoch: int,
        head: int,
        *users: int,
        whole: bool = True,
        doubt: bool = False,
        came: Mapping[int, int] | None = None,
    ) -> None:
        """`came`: with which entry; who is not in it, with the first."""
        since = [(came or {}).get(user, 0) for user in users]
        self.say(Join(self._conv, epoch, head, list(users), since, whole, doubt))

    def batch(self, first: int, count: int = 1) -> None:
        made = drafts(first, count)
        self.say(Batch(self._conv, first, made.payloads, made.cuts, made.senders))


class Nodes:
    def __init__(self, nursery: trio.Nursery, **options: Any) -> None:
        self.nursery = nursery
        self.options = options
        self.store = GatedStore()
        self.leases = MemoryLeases()
        self.network = Network()
        self.presence = MemoryPresence(trio.current_time)
        self.running: list[ClusterNode] = []

    def start(
        self, name: str, *, together: bool = True, now: Any = None, lease_ms: int = LEASE_MS
    ) -> ClusterNode:
        made = ClusterNode(self, name, lease_ms=lease_ms)
        if now is not None:
            made.node.now = now
        self.running.append(made)
        self.nursery.start_soon(made.run, together)
        return made

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let time go by until it holds; bounded, so that a test cannot hang."""
        for _ in range(LOOKS_MAX):
            if condition():
                return
            await trio.sleep(LOOK_AGAIN_S)
        raise AssertionError("it did not come to that")

    async def settled(self) -> None:
        """Every slot has its owner, and everybody hears everybody."""
        await self.until(self._settled)

    def _settled(self) -> bool:
        names = {n.placement.me.incarnation for n in self.running}
        return (
            sum(len(n.placement.owned) for n in self.running) == SLOTS
            and all(n.placement.seen.keys() == names for n in self.running)
            and all(in_step(n.cluster) for n in self.running)
            and all(len(n.cluster.peers) == len(names) - 1 for n in self.running)
            and all(
                n.placement.preferred(slot) == n.placement.me.incarnation
                for n in self.running
                for slot in n.placement.owned
            )
        )

    def owner(self, conv: str) -> ClusterNode:
        (owner,) = [n for n in self.running if n.owns(conv)]
        return owner

    def owners(self) -> dict[int, list[str]]:
        """Who takes new commands for each slot; more than one would be a disaster."""
        found: dict[int, list[str]] = {}
        for n in self.running:
            if n.placement.good():
                for slot in n.placement.owned:
                    found.setdefault(slot, []).append(n.node.name)
        return found


@asynccontextmanager
async def nodes_of(*names: str, **options: Any) -> AsyncIterator[Nodes]:
    """These nodes, each with its share of the slots, and accounts 1 to `USERS`."""
    async with trio.open_nursery() as nursery:
        nodes = Nodes(nursery, **options)
        users = [User(id=0, name=f"user{n}") for n in range(1, USERS + 1)]
        await nodes.store.create_users(users, [None] * USERS)
        for name in names:
            nodes.start(name)
        if names:
            await nodes.settled()
        yield nodes
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def one_node(name: str = "n1", **options: Any) -> AsyncIterator[ClusterNode]:
    """A node that is alone with what a test tells it of others: nothing moves by itself."""
    async with trio.open_nursery() as nursery:
        nodes = Nodes(nursery, **options)
        users = [User(id=0, name=f"user{n}") for n in range(1, USERS + 1)]
        await nodes.store.create_users(users, [None] * USERS)
        made = nodes.start(name, together=False)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(ONE_NODE_MAX_S):
            yield made
        nursery.cancel_scope.cancel()


def payload(seq: int, sender: int = 1, body: str = "") -> bytes:
    """An entry as it is stored."""
    return encode_entry(
        Entry(seq=seq, sender=sender, ts=1, kind="text", body=body or f"m{seq}", key=f"k{seq}")
    )


def drafts(first: int, count: int = 1, sender: int = 1) -> Drafts:
    """New entries as an owner's words bring them."""
    made = Drafts()
    for seq in range(first, first + count):
        made.add(payload(seq, sender), key_bytes(f"k{seq}"), sender, 0, None)
    return made


async def store_entries(store: GatedStore, conv: str, first: int, count: int) -> None:
    """As if some owner had written them."""
    payloads = [payload(seq) for seq in range(first, first + count)]
    await store.commit(Commit(appends=[Append(conv, first, payloads, 1)]))


async def pulled(n: ClusterNode, connection: Connection, seq: int, head: int) -> None:
    """Everything so far has been heard, and now an answer told of `CONV` up to an entry."""
    await trio.testing.wait_all_tasks_blocked()
    connection.reached(CONV, seq, head)
    n.node.flusher.kick()


async def send(peer: Peer, conv: str, *bodies: str) -> list[int]:
    """Texts, one after the other; their seqs."""
    return [
        (await peer.ok("send", conv=conv, key=f"{peer.user}-{body}", kind="text", body=body))["seq"]
        for body in bodies
    ]


async def events(peer: Peer, count: int, t: str = "msg") -> list[Any]:
    """The next events of a name."""
    return [await peer.event(t) for _ in range(count)]


async def seqs(peer: Peer, count: int) -> list[int]:
    """Those of the next entries."""
    return [event["seq"] for event in await events(peer, count)]


async def nothing_more(peers: Iterable[Peer], *, but: tuple[str, ...] = ()) -> None:
    """Everything that was said has been heard, and nothing of it was for these."""
    await trio.testing.wait_all_tasks_blocked(0.003)
    for peer in peers:
        await peer.ok("ping")
        found = [event for event in peer.events if event["t"] not in but]
        assert not found, found
