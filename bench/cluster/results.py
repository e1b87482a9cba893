"""What the cases of a cluster find out, and the file that keeps it. Typed, written as JSON.

Every case has figures of its own, so they are named here by what they are, and not by columns.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct, field

from bench import stats
from bench.results import Setting


class Figure(Struct, frozen=True, kw_only=True):
    """One number of each round; `unit` is what it counts, as `ms` or `publishes/s`."""

    name: str
    unit: str
    rounds: list[float]

    @property
    def median(self) -> float:
        """Over the rounds. Raises `ValueError` where there was none."""
        median = stats.median(self.rounds)
        if median is None:
            raise ValueError(f"{self.name} was never measured")
        return median


class Target(Struct, frozen=True, kw_only=True):
    """What must be reached, and what was; `times`: both are ratios. `reached` None: not measured.

    `value` None: nothing is demanded, the figure alone is wanted.
    """

    what: str
    unit: str = ""
    value: float | None
    reached: float | None
    at_most: bool = False
    times: bool = False

    @property
    def met(self) -> bool | None:
        """None where nothing is demanded, or nothing was measured."""
        if self.value is None or self.reached is None:
            return None
        return self.reached <= self.value if self.at_most else self.reached >= self.value


class Shares(Struct, frozen=True, kw_only=True):
    """How many cores each process used in the measured windows, on average."""

    variant: str
    cores: dict[str, float]


class CaseResult(Struct, kw_only=True):
    """One case."""

    case: str
    load: str
    targets: list[Target] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    shares: list[Shares] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def missed(self) -> bool:
        """Whether a demand was not met, or could not be measured."""
        return bool(self.failures) or any(
            not target.met for target in self.targets if target.value is not None
        )


class ClusterReport(Struct, kw_only=True):
    """The whole file."""

    setting: Setting
    cases: list[CaseResult]


def save(report: ClusterReport, file: Path) -> None:
    """Write the result file, to be read by people too."""
    file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def load(file: Path) -> ClusterReport:
    """Read a result file. Raises `msgspec.DecodeError`, `OSError`."""
    return msgspec.json.decode(file.read_bytes(), type=ClusterReport)
