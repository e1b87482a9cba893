"""The faults, by name: each begins at a chance moment, lasts for a while, and is over.

All that a fault needs to end is started outside the nodes, so that it ends whatever happens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from tests.simulation.nodes import SimulatedNode
    from tests.simulation.world import World

PAUSE_MAX_S = 25.0
"""Well beyond a lease."""


async def rage(world: World) -> None:
    """One fault after another, and several at once, for ever."""
    while True:
        await trio.sleep(world.rng.expovariate(1 / world.plan.mean_between_s))
        if world.plan.faults:
            name = world.rng.choice(world.plan.faults)
            world.faults[name] = world.faults.get(name, 0) + 1
            world.note(f"fault: {name}")
            world.outside.start(FAULTS[name], world)


def _some_node(world: World) -> SimulatedNode:
    return world.rng.choice(world.nodes)


def _lasting(world: World, mean_s: float) -> float:
    return min(world.rng.expovariate(1 / mean_s), PAUSE_MAX_S)


async def _while(world: World, seconds: float) -> None:
    """Wait, but not into peace."""
    end = trio.current_time() + seconds
    while not world.peace and trio.current_time() < end:  # noqa: ASYNC110 - time is simulated
        await trio.sleep(min(0.5, max(end - trio.current_time(), 0.0)))


async def kill(world: World) -> None:
    node = _some_node(world)
    if node.up and not node.draining:
        node.kill()
        await node.ended()
        await _while(world, _lasting(world, 4.0))
        if not node.up and not world.peace:
            node.start()


async def pause(world: World) -> None:
    node = _some_node(world)
    if node.up:
        process = node.process
        node.pause()
        await _while(world, _lasting(world, world.rng.choice([0.5, 8.0])))
        if node.process is process:
            node.resume()


async def drain(world: World) -> None:
    node = _some_node(world)
    if node.up and not node.draining:
        await node.drain()
        await _while(world, _lasting(world, 1.0))
        if not node.up and not world.peace:
            node.start()


async def store_fails(world: World) -> None:
    node = _some_node(world)
    node.weather.failing = world.rng.choice([0.05, 0.3, 1.0])
    await _while(world, _lasting(world, 4.0))
    node.weather.failing = 0.0


async def store_is_slow(world: World) -> None:
    node = _some_node(world)
    node.weather.slow = world.rng.choice([0.1, 1.0])
    await _while(world, _lasting(world, 4.0))
    node.weather.slow = 0.0


async def leases_fail(world: World) -> None:
    node = _some_node(world)
    node.leases_weather.failing = world.rng.choice([0.3, 1.0])
    node.leases_weather.slow = 0.3
    await _while(world, _lasting(world, 5.0))
    node.leases_weather.clear()


async def cut_off(world: World) -> None:
    """A node loses the store and the leases, but neither its clients nor the bus."""
    node = _some_node(world)
    for weather in (node.weather, node.leases_weather):
        weather.failing = 1.0
    await _while(world, _lasting(world, 8.0))
    for weather in (node.weather, node.leases_weather):
        weather.clear()


async def bus_loses(world: World) -> None:
    world.network.lossy = world.rng.choice([0.02, 0.3])
    await _while(world, _lasting(world, 6.0))
    world.network.lossy = 0.0


async def bus_is_slow(world: World) -> None:
    world.network.delayed = world.rng.choice([0.1, 0.5])
    await _while(world, _lasting(world, 5.0))
    world.network.delayed = 0.0


async def bus_is_away(world: World) -> None:
    world.network.away = True
    await _while(world, _lasting(world, 3.0))
    world.network.away = False


async def bus_stands_still(world: World) -> None:
    """It loses nothing, and what it was given comes late, in one go."""
    world.network.stand_still()
    await _while(world, _lasting(world, 4.0))
    world.network.go_on()


async def bus_is_cut(world: World) -> None:
    """One way between two nodes, or both."""
    one, other = world.rng.sample(world.nodes, 2)
    ways = [(one.inbox, other.inbox), (other.inbox, one.inbox)][: world.rng.randint(1, 2)]
    world.network.cut.update(ways)
    await _while(world, _lasting(world, 5.0))
    world.network.cut.difference_update(ways)


async def presence_is_lost(world: World) -> None:
    """FLUSHALL; now and then after an outage."""
    if world.rng.random() < 0.5:
        node = _some_node(world)
        node.presence_weather.failing = 1.0
        await _while(world, _lasting(world, 4.0))
        node.presence_weather.clear()
    world.presence.lose_all()


FAULTS: dict[str, Callable[[World], Awaitable[None]]] = {
    fault.__name__: fault
    for fault in (
        kill,
        pause,
        drain,
        store_fails,
        store_is_slow,
        leases_fail,
        cut_off,
        bus_loses,
        bus_is_slow,
        bus_is_away,
        bus_stands_still,
        bus_is_cut,
        presence_is_lost,
    )
}
