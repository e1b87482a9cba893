"""Every command has a handler somewhere, and each where it belongs."""

from __future__ import annotations

from typing import get_args

from broker.wire.commands import OPENING, AnyCommand, Ping, Refresh
from tests.helpers.broker import Broker


async def test_every_command_is_handled(broker: Broker) -> None:
    opening, open_ = broker.node.opening_table, broker.node.open_table
    assert set(opening) == set(get_args(OPENING))
    assert set(opening) | set(open_) == set(get_args(AnyCommand))


async def test_only_refresh_and_ping_are_for_both_states(broker: Broker) -> None:
    assert set(broker.node.opening_table) & set(broker.node.open_table) == {Refresh, Ping}
