"""People on a real cluster, faults that a seed decides, and whether it was right in the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import trio

from tests.faults.cluster.carriers import dial_tcp, dial_websocket
from tests.faults.cluster.harm import FAULTS, Fault, Harm
from tests.faults.cluster.machines import BROKER, Machines, Node, machines
from tests.faults.cluster.truth import read_back, truth_of
from tests.helpers.peer import Carrier, Peer, open_tcp
from tests.histories.checker import Truth, check
from tests.histories.client import Client
from tests.histories.people import Habits, Person
from tests.histories.record import Record

USERS = 12
STEADY = 4
"""The last ones of them: they only talk, and never go away by themselves."""
SECOND_DEVICES = 3
CALM_S = 5.0
"""Between two parts of a story: nobody does harm."""
SETTLE_S = 60.0
"""After the last fault, everything that was begun is answered by then, everybody connected."""
QUIET_S = 15.0
"""Then nobody says anything, and by its end everybody knows everything."""
LOOK_S = 0.2
EVERY_KIND = tuple(FAULTS)
BUSY = Habits(think_s=2.5)
CHATTY = Habits(
    think_s=0.8,
    talks_direct=0.5,
    talks_in_group=0.5,
    amends=0.0,
    reads=0.0,
    looks=0.0,
    comes_and_goes=0.0,
    rules=0.0,
    types=0.0,
    vanishes=0.0,
    is_deaf=0.0,
)

Told = Callable[[str], None]


@dataclass
class Outcome:
    """What became of a story."""

    record: Record
    faults: list[Fault]
    wrong: list[str]
    truth: Truth
    steady: frozenset[int]
    """The users whose waiting is told."""
    lasted_s: float = 0.0
    settled_after_s: float = 0.0


@dataclass
class Story:
    """One run. The parts of a plot are awaited one after the other, with a calm after each."""

    machines: Machines
    rng: Random
    told: Told = field(default=lambda line: None)

    async def play(self, plot: Sequence[Callable[[Harm], Awaitable[None]]]) -> Outcome:
        """Furnish, let people in, let the plot happen, heal, and judge."""
        self.record = record = Record(keep_trace=True)
        self.harm = Harm(self.machines, record, Random(self.rng.random()))
        tokens = await self._accounts()
        groups = await self._groups(tokens)
        self.clients: list[Client] = []
        async with trio.open_nursery() as people:
            acting = trio.CancelScope()
            self._invite(people, acting, tokens, groups)
            began = trio.current_time()
            await trio.sleep(CALM_S)
            for part in plot:
                await part(self.harm)
                await trio.sleep(CALM_S)
            lasted = trio.current_time() - began
            settled = await self._make_peace(acting)
            wrong, truth = await self._judge(groups, tokens)
            people.cancel_scope.cancel()
        steady = frozenset(self.users[-STEADY:])
        return Outcome(record, self.harm.faults, wrong, truth, steady, lasted, settled)

    async def _accounts(self) -> dict[int, str]:
        """A token of each user, by id."""
        names = [f"user{number}" for number in range(1, USERS + 1)]
        said = await trio.to_thread.run_sync(self.machines.parley, "token", "--create", *names)
        tokens = {}
        for token in said.split():
            peer = await open_tcp("127.0.0.1", self.machines.nodes[0].tcp)
            tokens[(await peer.hello(token))["user"]] = token
            await peer.aclose()
        self.users = list(tokens)
        return tokens

    async def _groups(self, tokens: dict[int, str]) -> list[str]:
        """Two open groups: of all, and of the first few."""
        maker = await open_tcp("127.0.0.1", self.machines.nodes[0].tcp)
        await maker.hello(tokens[self.users[0]])
        convs = []
        for members, history in ((self.users[1:], "all"), (self.users[1:3], "joined")):
            made = await maker.ok(
                "group.create",
                title="Tea",
                visibility="public",
                join="open",
                history=history,
                members=members,
            )
            convs.append(made["conv"])
        await maker.aclose()
        return convs

    def _invite(
        self,
        people: trio.Nursery,
        acting: trio.CancelScope,
        tokens: dict[int, str],
        groups: list[str],
    ) -> None:
        users = self.users
        names = [(user, f"u{user}b") for user in users[:SECOND_DEVICES]]
        names += [(user, f"u{user}a") for user in users]
        persons = []
        for number, (user, name) in enumerate(names):
            others = [other for other in users if other != user]
            client = Client(
                self.record,
                Random(self.rng.random()),
                [partial(self._dial, people, node, number) for node in self.machines.nodes],
                user=user,
                name=name,
                token=tokens[user],
                watch=others,
                patient=number % 2 == 0,
            )
            steady = user in users[-STEADY:]
            person = Person(
                client,
                Random(self.rng.random()),
                CHATTY if steady else BUSY,
                others=others,
                groups=groups[:1] if steady else groups,
            )
            self.clients.append(client)
            persons.append(person)
            people.start_soon(client.run)
        people.start_soon(_act, acting, persons)

    async def _dial(self, people: trio.Nursery, node: Node, number: int) -> Carrier:
        """Two of three clients are on TCP, the others on WebSockets of both kinds."""
        if number % 3 == 2:
            return await dial_websocket(people, node.http, text=number % 2 == 0)
        return await dial_tcp(node.tcp)

    async def _make_peace(self, acting: trio.CancelScope) -> float:
        """Nothing more fails, nobody says more; how long until all is answered."""
        acting.cancel()
        leaving = next(client for client in self.clients if client.user == self.users[-STEADY - 1])
        leaving.leave_for_good()
        for client in self.clients:
            if client is not leaving:
                client.offline_until = client.deaf_until = 0.0
        began = trio.current_time()
        with trio.move_on_after(SETTLE_S):
            while self._unsettled():  # noqa: ASYNC110 - clients know, each for itself
                await trio.sleep(LOOK_S)
        took = trio.current_time() - began
        self.told(f"settled after {took:.1f} s")
        await trio.sleep(QUIET_S)
        return took

    def _unsettled(self) -> list[str]:
        return [
            f"{client.name} is not done: connected {client.saw.connected}, "
            f"{len(client.intents)} intents, {client.saw.unanswered} unanswered"
            for client in self.clients
            if client.offline_until != float("inf")
            and not (client.saw.connected and not client.intents and not client.saw.unanswered)
        ]

    async def _judge(self, groups: list[str], tokens: dict[int, str]) -> tuple[list[str], Truth]:
        online = {client.user for client in self.clients if client.saw.connected}
        convs = {conv for client in self.clients for conv in client.saw.logs}
        convs |= {intent.conv for intent in self.record.intents} | set(groups)
        truth = await truth_of(self.machines, sorted(convs), online, groups[1:])
        wrong = check(self.record, truth) + self._unsettled()
        for node in self.machines.nodes:
            peers = {
                user: await _open(node.tcp, token)
                for user, token in tokens.items()
                if user in online
            }
            wrong += [f"by node {node.node}: {what}" for what in await read_back(truth, peers)]
            for peer in peers.values():
                await peer.aclose()
            wrong += node.defects()
        return wrong, truth


async def _act(scope: trio.CancelScope, persons: list[Person]) -> None:
    with scope:
        async with trio.open_nursery() as nursery:
            for person in persons:
                nursery.start_soon(person.run)


async def _open(port: int, token: str) -> Peer:
    peer = await open_tcp("127.0.0.1", port)
    await peer.hello(token)
    return peer


def alone_of(
    times: int, kinds: Sequence[str], told: Told
) -> list[Callable[[Harm], Awaitable[None]]]:
    """Parts of a plot: each kind so many times, one fault after the other."""

    async def part(kind: str, harm: Harm) -> None:
        fault = await harm.alone(kind)
        told(f"{len(harm.faults)} alone, for {fault.ended - fault.begun:.1f} s: {kind}")

    return [partial(part, kind) for _ in range(times) for kind in kinds]


def storm_of(
    count: int, kinds: Sequence[str], told: Told, *, until_wrong: bool = False
) -> Callable[[Harm], Awaitable[None]]:
    """A part of a plot: so many faults of these kinds, or until a client has noticed something."""

    async def part(harm: Harm) -> None:
        seen, before = len(harm.record.violations), len(harm.faults)

        def tell(fault: Fault) -> None:
            nonlocal seen
            acknowledged = harm.record.counts.get("acknowledged", 0)
            told(
                f"{len(harm.faults) - before}/{count} at {fault.begun:.0f} s: {fault.kind}; "
                f"{acknowledged} acknowledged, {len(harm.record.violations)} violations"
            )
            for what in harm.record.violations[seen:]:
                told(what)
            seen = len(harm.record.violations)

        def enough() -> bool:
            return until_wrong and bool(harm.record.violations)

        await harm.rage(count, kinds, told=tell, enough=enough)

    return part


async def play(
    folder: Path,
    seed: int,
    plot: Sequence[Callable[[Harm], Awaitable[None]]],
    *,
    cassandra: int = 1,
    command: Sequence[str] = BROKER,
    told: Told = lambda line: None,
) -> Outcome:
    """A whole run in this folder, from the start of the servers to the judgement."""
    async with machines(folder, cassandra=cassandra, command=command) as made:
        told("all is up")
        return await Story(made, Random(seed), told).play(plot)
