"""What each word means to the node that hears it: plain calls, one function a word, one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actors.cluster import words as w
from actors.cluster.caller import Caller
from actors.faults import defect
from broker.wire.codec import MSGPACK
from broker.wire.errors import Refusal
from storage.records import SlotRecord

if TYPE_CHECKING:
    from actors.cluster.cluster import Cluster
    from actors.cluster.peer import Peer


def hear(cluster: Cluster, peer: Peer, word: w.AnyWord) -> None:
    """Do what a word says; the supervisor of single words."""
    try:
        _TABLE[type(word)](cluster, peer, word)
    except Exception:  # noqa: BLE001 - the supervisor
        cluster.node.counters.crashes += 1
        defect(f"the word {type(word).__name__} of {peer.inbox}")


def _confirm(cluster: Cluster, peer: Peer, word: w.Confirm) -> None:
    peer.mark_dirty()


# Users and sessions


def _start(cluster: Cluster, peer: Peer, word: w.Start) -> None:
    # What is not said again in this session is put away, though we were not told.
    cluster.following.orphan(peer)
    peer.reset_users(word.users, word.hidden)
    cluster.here.compare(peer.users)
    peer.rejoin()
    peer.mark_dirty()


def _here(cluster: Cluster, peer: Peer, word: w.Here) -> None:
    peer.arrived(word.users, word.hidden)
    cluster.here.compare(word.users)


def _gone(cluster: Cluster, peer: Peer, word: w.Gone) -> None:
    for user in word.users:
        peer.departed(user, word.seen_ms)


def _changed(cluster: Cluster, peer: Peer, word: w.Changed) -> None:
    for user in word.users:
        cluster.here.changed(user, word.hidden)


def _leave(cluster: Cluster, peer: Peer, word: w.Leave) -> None:
    peer.link.left = True
    cluster.placement.look_soon()


def _suspect(cluster: Cluster, peer: Peer, word: w.Suspect) -> None:
    if cluster.suspect is not None:
        cluster.suspect()


def _tell(cluster: Cluster, peer: Peer, word: w.Tell) -> None:
    for user in word.users:
        for connection in cluster.node.registry.connections_of(user):
            if connection.number == word.besides:
                continue
            if not word.behind or word.behind in (connection.behind or ()):
                connection.push_event(word.event)


# Commands


def _ask(cluster: Cluster, peer: Peer, word: w.Ask) -> None:
    mine = cluster.placement.epoch_of(word.slot) and word.slot not in cluster.routes
    if not mine or peer.bounced.get(word.slot) == word.attempt:
        peer.bounce(word.slot, word.attempt, word.tag)
        return
    node = cluster.node
    caller = Caller(node, peer, word)
    command = MSGPACK.decode_good(word.command)
    try:
        node.open_table[type(command)](caller, command)  # type: ignore[arg-type]
    except Refusal as refusal:
        caller.refuse(command.id, refusal)
    except Exception:  # noqa: BLE001 - the supervisor
        node.counters.crashes += 1
        caller.refuse(command.id, defect(f"command {type(command).__name__}"))


def _answer(cluster: Cluster, peer: Peer, word: w.Answer) -> None:
    route = cluster.take_tag(word.tag)
    if route is not None:
        route.answered(word)


def _moved(cluster: Cluster, peer: Peer, word: w.Moved) -> None:
    route = cluster.tagged(word.tag)
    if route is not None:
        route.moved(word.tag)


def _ask_heads(cluster: Cluster, peer: Peer, word: w.AskHeads) -> None:
    cluster.node.tasks.start_soon(cluster.heads.answer, peer, word)


def _heads(cluster: Cluster, peer: Peer, word: w.Heads) -> None:
    cluster.heads.told(word)


def _slots(cluster: Cluster, peer: Peer, word: w.Slots) -> None:
    cluster.placement.learn(SlotRecord(*record) for record in word.slots)
    cluster.placement.look_soon()


# Conversations of others


def _join(cluster: Cluster, peer: Peer, word: w.Join) -> None:
    cluster.following.join(peer, word)


def _part(cluster: Cluster, peer: Peer, word: w.Part) -> None:
    cluster.following.part(peer, word)


def _close(cluster: Cluster, peer: Peer, word: w.Close) -> None:
    cluster.following.close(peer, word)


def _batch(cluster: Cluster, peer: Peer, word: w.Batch) -> None:
    cluster.following.batch(peer, word)


def _event(cluster: Cluster, peer: Peer, word: w.Event) -> None:
    cluster.following.event(peer, word)


def _behind(cluster: Cluster, peer: Peer, word: w.Behind) -> None:
    cluster.following.behind(peer, word)


_TABLE: dict[type, Callable[[Cluster, Peer, Any], None]] = {
    w.Confirm: _confirm,
    w.Start: _start,
    w.Here: _here,
    w.Gone: _gone,
    w.Changed: _changed,
    w.Leave: _leave,
    w.Suspect: _suspect,
    w.Tell: _tell,
    w.Ask: _ask,
    w.Answer: _answer,
    w.Moved: _moved,
    w.AskHeads: _ask_heads,
    w.Heads: _heads,
    w.Slots: _slots,
    w.Join: _join,
    w.Part: _part,
    w.Close: _close,
    w.Batch: _batch,
    w.Event: _event,
    w.Behind: _behind,
}
