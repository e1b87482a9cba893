"""A whole cluster with its people and its faults, decided by one seed, and judged at its end."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import trio
from msgspec import Struct, field

import actors.cluster.placement
import storage.memory.shared
import storage.names
from storage.memory import MemoryStore
from storage.memory.shared import MemoryLeases, MemoryPresence
from storage.names import direct_users
from storage.records import Append, Commit, Entry, Group, Member, User, encode_entry
from tests.histories.checker import Truth, check
from tests.histories.client import Client
from tests.histories.people import Habits, Person
from tests.histories.record import Record
from tests.simulation.network import Network
from tests.simulation.nodes import SimulatedNode
from tests.simulation.scheduling import Outside, run_repeatably
from tests.simulation.store import SharedStore
from tests.simulation.storms import rage
from tests.simulation.witness import Witness

CALM_S = 3.0
"""Before the first fault, so that there is something to lose."""
SETTLE_S = 90.0
"""After healing, everything that was begun is answered by then, and everybody is connected."""
QUIET_S = 30.0
"""Then nobody says anything, and by its end everybody knows everything."""
GROUPS = (1, 2)
SLOTS = 12


class Plan(Struct, frozen=True, kw_only=True):
    """What a run is made of."""

    nodes: int = 3
    users: int = 5
    second_devices: int = 2
    faulty_s: float = 40.0
    habits: Habits = Habits()
    faults: tuple[str, ...] = ()
    """Names of the kinds of faults that may happen; `tests.simulation.storms` knows them."""
    mean_between_s: float = 4.0
    strict: bool = False
    leases_ms: tuple[int, ...] = (5_000,)
    """Of the nodes, in turn."""


class Outcome(Struct):
    """What became of one seed."""

    seed: int
    wrong: list[str]
    trace_hash: str
    counts: dict[str, int]
    trace: list[str] | None = None
    faults: dict[str, int] = field(default_factory=dict)


class World:
    def __init__(self, plan: Plan, seed: int, nursery: trio.Nursery, *, keep_trace: bool) -> None:
        self.plan = plan
        self.rng = random.Random(seed)
        self.nursery = nursery
        self.outside = Outside(nursery)
        self.record = Record(keep_trace=keep_trace)
        self.store = SharedStore(strict=plan.strict)
        self.leases = MemoryLeases()
        self.presence = MemoryPresence(trio.current_time)
        self.network = Network(random.Random(self.rng.random()), self.outside)
        self.nodes = [
            SimulatedNode(self, number + 1, random.Random(self.rng.random()))
            for number in range(plan.nodes)
        ]
        self.clients: list[Client] = []
        self.faults: dict[str, int] = {}
        self.peace = False
        """From now on nothing more may go wrong."""

    def note(self, what: str) -> None:
        self.record.note(what)

    def silence(self, node: SimulatedNode) -> None:
        """A node has died: what it still says reaches nobody."""
        self.network.leave(node.inbox)

    # The story

    async def play(self) -> list[str]:
        await self._furnish()
        for node in self.nodes:
            node.start()
        await trio.sleep(CALM_S)
        async with trio.open_nursery() as people:
            self._invite(people)
            await trio.sleep(CALM_S)
            with trio.move_on_after(self.plan.faulty_s):
                await rage(self)
            await self._heal()
            with trio.move_on_after(SETTLE_S):
                while not self._settled():  # noqa: ASYNC110 - time is simulated
                    await trio.sleep(0.5)
            await trio.sleep(QUIET_S)
            wrong = check(self.record, self._truth())
            wrong += self._unsettled() + self.store.misused
            people.cancel_scope.cancel()
        return wrong

    async def _furnish(self) -> None:
        plan = self.plan
        users = [User(id=0, name=f"user{n}") for n in range(1, plan.users + 1)]
        await self.store.create_users(users, [None] * plan.users)
        for id_ in GROUPS:
            members = range(1, plan.users + 1) if id_ == 1 else (1, 2)
            await _found(self.store, id_, members)

    def _invite(self, people: trio.Nursery) -> None:
        plan = self.plan
        doors = [node.dial for node in self.nodes]
        users = range(1, plan.users + 1)
        names = [(user, f"u{user}a") for user in users]
        names += [(user, f"u{user}b") for user in range(1, plan.second_devices + 1)]
        self._acting = trio.CancelScope()
        for number, (user, name) in enumerate(names):
            others = [other for other in users if other != user]
            client = Client(
                self.record,
                random.Random(self.rng.random()),
                list(doors),
                user=user,
                name=name,
                token=str(user),
                watch=others,
                patient=number % 2 == 0,
            )
            self.clients.append(client)
            person = Person(
                client,
                random.Random(self.rng.random()),
                plan.habits,
                others=others,
                groups=[f"g/{id_}" for id_ in GROUPS],
            )
            people.start_soon(client.run)
            people.start_soon(self._act, person)

    async def _act(self, person: Person) -> None:
        while not self.peace:
            with trio.move_on_after(1.0):
                await person.run()

    async def _heal(self) -> None:
        self.peace = True
        self.note("peace")
        self.network.clear()
        for node in self.nodes:
            for weather in (node.weather, node.presence_weather, node.leases_weather):
                weather.clear()
            node.resume()
        while any(node.draining for node in self.nodes):  # noqa: ASYNC110
            await trio.sleep(0.1)
        for node in self.nodes:
            if not node.up:
                await node.ended()
                node.start()
        self.clients[-1].leave_for_good()
        for client in self.clients[:-1]:
            client.offline_until = 0.0

    def _settled(self) -> bool:
        return not self._unsettled()

    def _unsettled(self) -> list[str]:
        """Who is still at something."""
        return [
            f"{client.name} is not done: connected {client.saw.connected}, "
            f"{len(client.intents)} intents, {client.saw.unanswered} unanswered"
            for client in self.clients
            if client.offline_until != float("inf")
            and not (client.saw.connected and not client.intents and not client.saw.unanswered)
        ]

    def _truth(self) -> Truth:
        logs = self.store.logs()
        return Truth(
            logs=logs,
            members={
                conv: list(direct_users(conv)) or self.store.members_now(conv) for conv in logs
            },
            earlier={
                conv: [[entry.payload, *entry.revised] for entry in entries]
                for conv, entries in self.store.history.items()
            },
            online={client.user for client in self.clients if client.saw.connected},
            private={"g/2"},
        )


async def _found(store: MemoryStore, id_: int, members: Iterable[int]) -> None:
    """An open group of these users, made long ago."""
    conv = f"g/{id_}"
    users = list(members)
    body = {"event": "created", "users": users, "by": users[0], "title": "x"}
    entry = Entry(seq=1, sender=users[0], ts=1, kind="system", body=body)
    await store.commit(
        Commit(
            appends=[Append(conv, 1, [encode_entry(entry)], 1)],
            groups=[
                Group(
                    id=id_,
                    title="x",
                    kind="group",
                    visibility="public",
                    join="open",
                    history="all" if id_ == 1 else "joined",
                    created=1,
                )
            ],
            members=[
                Member(conv, user, "owner" if user == users[0] else "member", 1) for user in users
            ],
        )
    )


def simulate(seed: int, plan: Plan, *, keep_trace: bool = False) -> Outcome:
    """Play one seed to its end."""

    defects = _Defects()
    witness = Witness()

    async def main() -> Outcome:
        async with trio.open_nursery() as nursery:
            world = witness.world = World(plan, seed, nursery, keep_trace=keep_trace)
            wrong = await world.play() + defects.seen
            outcome = Outcome(
                seed,
                wrong,
                world.record.trace_hash,
                world.record.counts,
                world.record.trace,
                world.faults,
            )
            nursery.cancel_scope.cancel()
        return outcome

    with few_slots(), defects, witness:
        return run_repeatably(seed, main)


class _Defects(logging.Handler):
    """Hears what nodes log; what a supervisor has caught is a defect, wherever it was."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0] is not None:
            self.seen.append(logging.Formatter().format(record))

    def __enter__(self) -> None:
        logger = logging.getLogger("parley")
        self._before = logger.propagate
        logger.propagate = False
        logger.addHandler(self)

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger("parley")
        logger.propagate = self._before
        logger.removeHandler(self)


@contextmanager
def few_slots() -> Iterator[None]:
    """So many slots as a short run needs: each look at all of them costs."""
    modules = (storage.names, storage.memory.shared, actors.cluster.placement)
    before = storage.names.SLOTS
    for module in modules:
        module.SLOTS = SLOTS  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in modules:
            module.SLOTS = before  # type: ignore[attr-defined]
