"""One task for all deadlines: openings, silence, stalls, goodbyes, loads, idle conversations.

It looks at everything a few times a second or less, instead of a timer per connection, which would
cost each one memory. Deadlines are therefore met to within `PERIOD_S`. It decides nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from broker.wire.errors import ByeCode

if TYPE_CHECKING:
    from actors.conversation import Conversation
    from actors.node import Node

PERIOD_S = 0.5
SILENCE_PERIOD_S = 5.0
"""Silence is counted in heartbeats: looking at every connection may be rare."""
PASSIVATE_PERIOD_S = 5.0
LOOKS_BEFORE_YIELD = 1_000


async def run_sweeper(node: Node) -> None:
    next_silence = next_passivation = node.now()
    while True:
        await trio.sleep(PERIOD_S)
        now = node.tick = node.now()
        sweep_openings(node, now)
        sweep_stalled(node, now)
        sweep_lingering(node, now)
        node.turn.load_again()
        if now >= next_silence:
            next_silence = now + SILENCE_PERIOD_S
            await sweep_silent(node, now)
        if now >= next_passivation:
            next_passivation = now + PASSIVATE_PERIOD_S
            await sweep_conversations(node, now)
        node.flusher.kick()


def sweep_openings(node: Node, now: float) -> None:
    """Who has not said who they are in time must go."""
    deadline = now - node.options.opening_timeout_ms / 1000
    for connection in list(node.opening):
        if connection.opened_at > deadline:
            break
        connection.bye(ByeCode.AUTH_TIMEOUT)
        node.opening.pop(connection, None)


def sweep_stalled(node: Node, now: float) -> None:
    """Who has taken nothing for the stall time is cut."""
    deadline = now - node.options.stall_ms / 1000
    for outbox in list(node.stalled):
        if outbox.progress_at < deadline and not outbox.closing:
            node.counters.slow_cut += 1
            outbox.bye(ByeCode.SLOW_CONSUMER)


def sweep_lingering(node: Node, now: float) -> None:
    """Who was told goodbye and does not close is closed."""
    for connection, deadline in list(node.lingering.items()):
        if deadline <= now:
            connection.cut()


async def sweep_silent(node: Node, now: float) -> None:
    """Who has said nothing for two heartbeats is gone."""
    deadline = now - 2 * node.options.heartbeat_ms / 1000
    for index, connection in enumerate(list(node.connections)):
        if connection.session is not None and connection.seen_at < deadline:
            connection.check_silence()
        if index % LOOKS_BEFORE_YIELD == LOOKS_BEFORE_YIELD - 1:
            await trio.lowlevel.checkpoint()


async def sweep_conversations(node: Node, now: float) -> None:
    """Passivate what is idle; above the limit, the longest idle first."""
    conversations = node.registry.conversations
    deadline = now - node.options.passivate_ms / 1000
    excess = len(conversations) - node.options.max_conversations
    if excess > 0:
        ages = sorted(c.used_at for c in conversations.values())
        deadline = max(deadline, ages[excess - 1] + 1e-6)
    for index, conversation in enumerate(list(conversations.values())):
        if idle(conversation, deadline):
            conversation.end()
        if index % LOOKS_BEFORE_YIELD == LOOKS_BEFORE_YIELD - 1:
            await trio.lowlevel.checkpoint()


def idle(conversation: Conversation, moment: float) -> bool:
    """Whether nothing is under way in it, nothing was asked or told after `moment`, and nobody can
    miss anything for its being forgotten."""
    cluster = conversation.node.cluster
    return (
        conversation.used_at < moment
        # Not before it knows what others may have missed, and all nodes have heard of it.
        and conversation.settled
        and (cluster is None or conversation.used_at < cluster.rounds.settled)
        and conversation.quiet()
    )
