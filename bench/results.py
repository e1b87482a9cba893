"""The result file: all rounds, what was made of them, and where. Typed, written as JSON."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct, field

from bench import stats
from bench.cases import CASES, Case
from bench.jobs import Outcome, System
from bench.machine import Machine
from bench.wire import Transport

LOAD_BOUND_SHARE = 0.95


class Setting(Struct, frozen=True, kw_only=True):
    """Under what conditions a result came about."""

    command: str
    started: str
    revision: str
    versions: dict[str, str]
    machine: Machine
    storage: str
    transport: Transport
    rounds: int
    window_s: float
    profiled: bool = False


class CaseResult(Struct, kw_only=True):
    """One case: the outcome of each round and system, None where it failed."""

    case: str
    rounds: dict[System, list[Outcome | None]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def definition(self) -> Case:
        """The case as the bench defines it now."""
        return CASES[self.case]

    def values(self, system: System) -> list[float]:
        """The case's number of each round that was measured."""
        return [self.definition.value(outcome) for outcome in self.outcomes(system)]

    def outcomes(self, system: System) -> list[Outcome]:
        """The rounds that were measured."""
        return [outcome for outcome in self.rounds.get(system, []) if outcome]

    def median(self, system: System) -> float | None:
        """The median over the rounds."""
        return stats.median(self.values(system))

    def ratio(self, than: System) -> float | None:
        """Parley against another: the median of the rounds' ratios."""
        value = self.definition.value
        both = zip(self.rounds.get("parley", []), self.rounds.get(than, []), strict=False)
        pairs = [(value(a), value(b)) for a, b in both if a and b]
        return stats.median_ratio([a for a, _ in pairs], [b for _, b in pairs])

    @property
    def reached(self) -> float | None:
        """What the target is compared with: a ratio, or Parley's own median."""
        than = self.definition.target.than
        return self.ratio(than) if than else self.median("parley")

    @property
    def met(self) -> bool | None:
        """Whether the target was reached; None where it could not be measured."""
        reached = self.reached
        return None if reached is None else self.definition.target.met(reached)

    def share(self, system: System, *, of_load: bool) -> float | None:
        """How much of its core the server, or the load client, used in the window."""
        outcomes = self.outcomes(system)
        cpu = [(o.load_cpu_s if of_load else o.server_cpu_s) / o.elapsed_s for o in outcomes]
        return stats.median(cpu)

    def load_bound(self, system: System) -> bool:
        """Whether the load client, rather than the server, had no more to give."""
        load, server = self.share(system, of_load=True), self.share(system, of_load=False)
        return load is not None and server is not None and load > max(LOAD_BOUND_SHARE, server)


class Summary(Struct, frozen=True, kw_only=True):
    """What is computed from a case's rounds, written beside them for who reads the file alone."""

    case: str
    load: str
    unit: str
    target: float
    target_than: System | None
    reached: float | None
    met: bool | None
    medians: dict[str, float | None]


class Report(Struct, kw_only=True):
    """The whole file."""

    setting: Setting
    cases: list[CaseResult]
    summary: list[Summary] = field(default_factory=list)

    def summarize(self) -> None:
        """Fill `summary` from the rounds."""
        self.summary = [
            Summary(
                case=result.case,
                load=result.definition.load,
                unit=result.definition.unit,
                target=result.definition.target.value,
                target_than=result.definition.target.than,
                reached=result.reached,
                met=result.met,
                medians={system: result.median(system) for system in result.rounds},
            )
            for result in self.cases
        ]


def save(report: Report, file: Path) -> None:
    """Write the result file, to be read by people too."""
    report.summarize()
    file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def load(file: Path) -> Report:
    """Read a result file. Raises `msgspec.DecodeError`, `OSError`."""
    return msgspec.json.decode(file.read_bytes(), type=Report)
