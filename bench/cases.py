"""The cases, their targets, and how a rate and a ratio are made of outcomes. Data, no I/O."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, structs

from bench.jobs import Job, Outcome, Shape, System
from bench.wire import Transport

Unit = Literal["deliveries", "publishes", "connections", "KB each"]


class Target(Struct, frozen=True):
    """What must be reached: `at_least` (or, for memory, `at_most`) times what `than` reached.

    `than` is a system of the same run, or None for an absolute number.
    """

    value: float
    than: System | None = None
    at_most: bool = False

    def met(self, reached: float) -> bool:
        """Whether a median is good enough."""
        return reached <= self.value if self.at_most else reached >= self.value


class Case(Struct, frozen=True, kw_only=True):
    """One line of the table."""

    name: str
    load: str
    shape: Shape
    groups: int = 1
    members: int
    publishers: int = 0
    in_flight: int = 1
    unit: Unit
    target: Target
    systems: tuple[System, ...]

    @property
    def connections(self) -> int:
        """How many users a server needs to know."""
        return self.groups * self.members

    def job(
        self,
        system: System,
        *,
        port: int,
        pid: int,
        transport: Transport,
        tokens: list[str],
        warmup_s: float,
        window_s: float,
        profiled: bool = False,
    ) -> Job:
        """What the load client is asked to do."""
        return Job(
            system=system,
            shape=self.shape,
            transport=transport,
            port=port,
            server_pid=pid,
            groups=self.groups,
            members=self.members,
            publishers=self.publishers,
            in_flight=self.in_flight,
            warmup_s=warmup_s,
            window_s=window_s,
            profiled=profiled,
            tokens=tokens if system == "parley" else [""] * self.connections,
        )

    def value(self, outcome: Outcome) -> float:
        """The case's number: per second of the server's CPU time, or KB a connection."""
        if self.unit == "KB each":
            assert outcome.private_kib is not None
            return outcome.private_kib / outcome.count
        return outcome.count / outcome.server_cpu_s

    def smaller(self, members: int, groups: int) -> Case:
        """The same case for a quick test of the bench itself."""
        return structs.replace(
            self,
            members=min(self.members, members),
            groups=min(self.groups, groups),
            publishers=min(self.publishers, members),
        )


ALL: tuple[System, ...] = ("parley", "nats", "floor", "naive")

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case(
            name="F1",
            load="1 group × 1,000 members, 5 publish, 1 in flight each",
            shape="groups",
            members=1_000,
            publishers=5,
            unit="deliveries",
            target=Target(2.5, "nats"),
            systems=ALL,
        ),
        Case(
            name="F2",
            load="1 group × 1,000 members, 20 publish, 50 in flight each",
            shape="groups",
            members=1_000,
            publishers=20,
            in_flight=50,
            unit="deliveries",
            target=Target(5, "nats"),
            systems=ALL,
        ),
        Case(
            name="F3",
            load="50 groups × 20 members, 2 publish, 4 in flight each",
            shape="groups",
            groups=50,
            members=20,
            publishers=2,
            in_flight=4,
            unit="deliveries",
            target=Target(2, "nats"),
            systems=ALL,
        ),
        Case(
            name="F4",
            load="1 group × 5,000 members, 1 publishes, 1 in flight",
            shape="groups",
            members=5_000,
            publishers=1,
            unit="deliveries",
            target=Target(0.85, "floor"),
            systems=ALL,
        ),
        Case(
            name="P1",
            load="500 pairs, one side publishes, 1 in flight",
            shape="pairs",
            groups=500,
            members=2,
            publishers=1,
            unit="publishes",
            target=Target(0.5, "nats"),
            systems=ALL,
        ),
        Case(
            name="P2",
            load="500 pairs, both publish, 8 in flight each",
            shape="pairs",
            groups=500,
            members=2,
            publishers=2,
            in_flight=8,
            unit="publishes",
            target=Target(0.35, "nats"),
            systems=ALL,
        ),
        Case(
            name="M",
            load="5,000 idle connections, logged in",
            shape="idle",
            members=5_000,
            unit="KB each",
            target=Target(8, at_most=True),
            systems=("parley", "nats", "naive"),
        ),
        Case(
            name="C",
            load="connect, upgrade, hello with a token, close; 50 at once",
            shape="connect",
            members=1_000,
            unit="connections",
            target=Target(6_000),
            systems=("parley", "naive"),
        ),
    )
}
