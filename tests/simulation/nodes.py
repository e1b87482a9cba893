"""One simulated node: the broker's own actors, put together as `broker.app` does, over what the
world gives in the place of stores, bus, sockets and clock. It is started, stopped, killed, drained.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import trio

from actors.cluster.cluster import Cluster
from actors.connection import Connection
from actors.node import Node, Options
from actors.sweeper import run_sweeper
from actors.wires import TCP_MSGPACK
from broker.commands.tables import open_table
from broker.drain import finish, hand_over, say_goodbye
from broker.wire import commands as c
from tests.helpers.peer import Carrier
from tests.simulation.scheduling import Process
from tests.simulation.sockets import NodeEnd, SimulatedReader
from tests.simulation.store import Distant, DistantStore
from tests.simulation.weather import Weather

if TYPE_CHECKING:
    from tests.simulation.world import World

DRAIN_MS = 2_000
WALL_CLOCK_MS = 1_800_000_000_000
"""What the wall clocks say about when the simulation begins."""
OPTIONS = Options(
    soft_bytes=8 * 1024,
    high_bytes=16 * 1024,
    hard_bytes=512 * 1024,
    stall_ms=10_000,
    passivate_ms=8_000,
    presence_coalesce_ms=300,
    recall_window_ms=30_000,
    heartbeat_ms=600_000,
    linger_ms=500,
)
"""Small marks and short times, so that a short run meets them."""


class Clock:
    """A node's clocks: wrong by a constant, and at the wrong rate by up to half a percent."""

    def __init__(self, rng: random.Random) -> None:
        self._offset = rng.uniform(0, 10_000)
        self._rate = 1 + rng.uniform(-0.005, 0.005)
        self._wall_offset = rng.randint(-20_000, 20_000)

    def now(self) -> float:
        return self._offset + trio.current_time() * self._rate

    def now_ms(self) -> int:
        return WALL_CLOCK_MS + self._wall_offset + int(trio.current_time() * 1000)


class SimulatedNode:
    """A place in the cluster. Each start makes everything in it anew, but for its name."""

    def __init__(self, world: World, number: int, rng: random.Random) -> None:
        self.world = world
        self.name = f"n{number}"
        leases_ms = world.plan.leases_ms
        self._lease_ms = leases_ms[number % len(leases_ms)]
        self.weather = Weather(random.Random(rng.random()))
        self.presence_weather = Weather(random.Random(rng.random()))
        self.leases_weather = Weather(random.Random(rng.random()))
        self._rng = rng
        self.up = False
        self.process: Process | None = None
        self.node: Node | None = None
        self.starts = 0
        self.inbox = ""
        self._scope = trio.CancelScope()
        self._ends: dict[NodeEnd, None] = {}
        self._accepted: list[NodeEnd] = []
        self._accept = trio.Event()
        self._stop = trio.Event()
        self._gone = trio.Event()

    # What the world does to it

    def start(self) -> None:
        """Start the process."""
        assert not self.up
        self.up = True
        self.starts += 1
        self.process = Process(f"{self.name}.{self.starts}")
        self._scope = trio.CancelScope()
        self._ends = {}
        self._accepted = []
        self._stop = trio.Event()
        self._gone = trio.Event()
        self.world.note(f"{self.process.name} starts")
        self.process.start(self.world.nursery, self._life)

    def kill(self) -> None:
        """kill -9: its last steps reach nobody."""
        assert self.process is not None
        if not self.up:
            return
        self.world.note(f"{self.process.name} dies")
        self.up = False
        for end in self._ends:
            end.die(self._rng)
        self.world.silence(self)
        self._scope.cancel()
        if self.process.stopped:
            self.process.go_on()

    def pause(self) -> None:
        if self.up and self.process is not None and not self.process.stopped:
            self.world.note(f"{self.process.name} stands still")
            self.process.stop()

    def resume(self) -> None:
        if self.process is not None and self.process.stopped:
            self.world.note(f"{self.process.name} goes on")
            self.process.go_on()

    async def drain(self) -> None:
        """SIGTERM, and wait for its end."""
        gone = self._gone
        if self.process is not None:
            self.world.note(f"{self.process.name} drains")
        self._stop.set()
        await gone.wait()

    @property
    def draining(self) -> bool:
        return self.up and self._stop.is_set()

    async def ended(self) -> None:
        """Wait until nothing of its last process is left."""
        await self._gone.wait()

    async def dial(self) -> Carrier:
        """A client connects."""
        await trio.sleep(0.001)
        if not self.up or self._stop.is_set() or self.node is None:
            raise ConnectionRefusedError(self.name)
        reader: Any = self.node.reader
        end = NodeEnd(reader)
        self._ends[end] = None
        self._accepted.append(end)
        self._accept.set()
        return end.client

    # Its life

    async def _life(self) -> None:
        gone = self._gone
        try:
            with self._scope:
                await self._serve()
        except Exception as error:  # noqa: BLE001 - a process that ends so is started again by nobody
            self.world.record.wrong(f"{self.name} ended by itself: {_innermost(error)!r}")
            self.world.silence(self)
        finally:
            self.up = False
            gone.set()

    async def _serve(self) -> None:
        clock = Clock(self._rng)
        node = self._make(clock)
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
            cluster = node.cluster
            if cluster is not None:
                cluster.start(tasks)
                await cluster.placement.wait_joined()
            await self._serve_clients(node)
            await finish(node)
            tasks.cancel_scope.cancel()

    async def _serve_clients(self, node: Node) -> None:
        """Until it is told to stop, and then in the app's order."""
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as listeners:
                listeners.start_soon(self._listen, node, connections)
                self.node = node
                await self._stop.wait()
                listeners.cancel_scope.cancel()
            for end in self._accepted:
                end.close()
            await hand_over(node, DRAIN_MS)
            connections.cancel_scope.deadline = trio.current_time() + DRAIN_MS / 1000
            await say_goodbye(node, DRAIN_MS)

    def _make(self, clock: Clock) -> Node:
        world = self.world
        store: Any = DistantStore(world.store, self.weather, world.outside)
        node = Node(store, options=OPTIONS, name=self.name, now_ms=clock.now_ms)
        node.now = clock.now
        node.tick = node.now()
        reader: Any = SimulatedReader(node)
        node.reader = reader
        opening: Any = PlainOpening()
        node.opening_table = {c.Hello: opening.hello, c.Ping: opening.ping}
        node.open_table = open_table(opening)
        if len(world.nodes) > 1:
            assert self.process is not None
            leases: Any = Distant(world.leases, self.leases_weather, world.outside)
            presence: Any = Distant(world.presence, self.presence_weather, world.outside)
            self.inbox = self.process.name
            node.cluster = Cluster(
                node,
                name=self.name,
                inbox=self.inbox,
                leases=leases,
                bus=world.network.bus(self.inbox),
                presence=presence,
                lease_ms=self._lease_ms,
            )
        return node

    async def _listen(self, node: Node, nursery: trio.Nursery) -> None:
        while True:
            self._accept = trio.Event()
            accepted, self._accepted = self._accepted, []
            for end in accepted:
                sock: Any = end
                connection = Connection(node, sock, wire=TCP_MSGPACK, tls=None, peer="client")
                nursery.start_soon(connection.run)
            await self._accept.wait()


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class PlainOpening:
    """Who says who they are is believed; accounts are not what is proven here."""

    def hello(self, connection: Connection, command: c.Hello) -> None:
        connection.begin(self._begin, command)

    async def _begin(self, connection: Connection, command: c.Hello) -> None:
        await connection.perform_held(command, self._open)

    async def _open(self, connection: Connection, command: c.Hello) -> None:
        user = int(command.token)
        cluster = connection.node.cluster
        if cluster is not None:
            await cluster.here.announce({user: False})
        if not connection.closing:
            connection.opened(user, f"session of {user}", "")
        elif cluster is not None:
            cluster.here.withdraw([user])
        connection.ok(command.id, user=user)

    def ping(self, connection: Connection, command: c.Ping) -> None:
        connection.ok(command.id)

    refresh = ping
