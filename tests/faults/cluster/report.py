"""What a run did, was told, and found, as a page for people."""

from __future__ import annotations

import math
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from broker.wire.limits import KEY_WINDOW_ENTRIES
from tests.faults.cluster.harm import AT_ONCE, FAULTS, Fault
from tests.faults.cluster.machines import LEASE_MS, NODE_NAMES
from tests.faults.cluster.story import STEADY, USERS, Outcome
from tests.helpers.servers import ROOT
from tests.histories.line import REPLY_S
from tests.histories.record import Intent

AFTER_S = LEASE_MS / 1000
"""What is begun so long after a fault's end still counts as in its time."""
SHOWN_MAX = 20
"""Violations that the page shows."""


@dataclass(frozen=True)
class Waits:
    """How long steady people waited for their messages to be acknowledged, around one fault."""

    first_s: float
    """From the fault's beginning to the first acknowledgement of what was sent after it."""
    all_s: tuple[float, ...]
    """Of every message sent in its time."""


def waits_of(fault: Fault, intents: Sequence[Intent]) -> Waits | None:
    """None where nobody said anything in its time."""
    until = fault.ended + AFTER_S
    told = [i for i in intents if i.seq and fault.begun <= i.begun_at <= until]
    if not told:
        return None
    first = min(intent.acknowledged_at for intent in told) - fault.begun
    return Waits(first, tuple(sorted(i.acknowledged_at - i.begun_at for i in told)))


def quantile(sorted_values: Sequence[float], share: float) -> float:
    """The smallest value that so many are not above."""
    return sorted_values[max(0, math.ceil(share * len(sorted_values)) - 1)]


def report(outcome: Outcome, *, command: str, seed: int, cassandra: int, of: str) -> str:
    """The page, in markdown; `of` is the revision that was run."""
    counts = outcome.record.counts
    verdict = f"{len(outcome.wrong)} violations" if outcome.wrong else "no violation"
    lines = [
        "# Faults of a real cluster",
        "",
        f"{len(outcome.faults)} faults in {outcome.lasted_s / 60:.0f} minutes: **{verdict}**. "
        "Made by a command, not by hand; [operations.md](operations.md#in-production) says what "
        "the figures mean for you.",
        "",
        f"    {command}",
        "",
        f"Revision `{of}`, seed {seed}. {len(NODE_NAMES)} nodes with leases of "
        f"{LEASE_MS / 1000:g} s, a Cassandra of {cassandra} node{'s' if cassandra > 1 else ''} "
        f"(replication {cassandra}), one Redis, and {USERS} users on "
        f"{len(outcome.record.devices)} connections, all on the same two cores, which other work "
        "had to share.",
        "",
        "## What was done, and how long people waited",
        "",
        *_table("One after the other, with nothing else wrong:", outcome, alone=True),
        *_table(f"Up to {AT_ONCE} at once, so that a wait may be another one's:", outcome),
        f"A fault lasts until all is up again. Waits are those of {STEADY} users who only talk "
        "and never go away, for messages that they began to send between a fault's beginning and "
        f"{AFTER_S:g} s after its end. A client gives up a connection whose answer takes "
        f"{REPLY_S:g} s, knows nothing of which node is well, and chooses the next by chance: "
        "waits are whole ones, with all tries. `unavailable` counts every try of everybody.",
        "",
        "## What was checked",
        "",
        "| | |",
        "|---|---|",
        f"| acknowledged | {counts.get('acknowledged', 0):,}, and "
        f"{counts.get('found in the log', 0):,} found in the log by who came back |",
        f"| entries in {len(outcome.truth.logs)} logs at the end | "
        f"{sum(map(len, outcome.truth.logs.values())):,} |",
        f"| entries that clients took | {counts.get('live', 0):,} live, "
        f"{counts.get('pulled', 0):,} pulled |",
        f"| connections that ended | {counts.get('connections ended', 0):,} |",
        f"| times told `behind` | {counts.get('behind', 0):,} |",
        f"| all answered after the last fault | {outcome.settled_after_s:.1f} s |",
        f"| violations | {len(outcome.wrong)} |",
        "",
        "Everything acknowledged is in the log, once, where its sender was told; logs have no "
        f"holes and no key twice (half of the clients say again at once what was not answered, and "
        f"may find it twice after {KEY_WINDOW_ENTRIES:,} other entries, as the protocol says); "
        "each client took entries in the order of the log without holes, "
        "has all of them in the end without having asked, and knows who is online; each node tells "
        "every log as it is stored. No command got two answers, or answers out of order, or one "
        "that no correct client may get; no node logged a traceback. The checker is "
        "`tests/histories/checker.py`; that it finds faults is tested in "
        "`tests/faults/cluster/test_falsified.py` and `tests/simulation/test_checker_catches.py`.",
    ]
    if outcome.wrong:
        lines += ["", "## Violations", "", *(f"- {what}" for what in outcome.wrong[:SHOWN_MAX])]
    return "\n".join(lines) + "\n"


def _table(title: str, outcome: Outcome, *, alone: bool = False) -> list[str]:
    """Nothing where there was no such fault."""
    by_kind: dict[str, list[Fault]] = defaultdict(list)
    for fault in outcome.faults:
        if fault.alone is alone:
            by_kind[fault.kind].append(fault)
    if not by_kind:
        return []
    steady = [i for i in outcome.record.intents if i.user in outcome.steady]
    return [
        title,
        "",
        "| fault | what it is | times | lasted, median (s) | first acknowledgement (s): median, "
        "worst | a message waited (s): median, 95 % | errors `unavailable`, median |",
        "|---|---|---|---|---|---|---|",
        *(_row(kind, by_kind[kind], steady) for kind in FAULTS if kind in by_kind),
        "",
    ]


def _row(kind: str, faults: Sequence[Fault], steady: Sequence[Intent]) -> str:
    lasted = sorted(fault.ended - fault.begun for fault in faults)
    refused = sorted(fault.unavailable for fault in faults)
    waits = [found for fault in faults if (found := waits_of(fault, steady))]
    first = sorted(wait.first_s for wait in waits)
    every = sorted(wait for found in waits for wait in found.all_s)
    return (
        f"| {kind} | {FAULTS[kind].means} | {len(faults)} | {quantile(lasted, 0.5):.1f} | "
        + (
            f"{quantile(first, 0.5):.2f}, {first[-1]:.1f} | "
            f"{quantile(every, 0.5):.2f}, {quantile(every, 0.95):.1f} | "
            if first
            else "– | – | "
        )
        + f"{quantile(refused, 0.5)} |"
    )


def revision() -> str:
    """Of the checkout, with a mark where it has changes that are not committed."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"
