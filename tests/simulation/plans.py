"""Which plan a seed has: everything at once, or a few kinds of faults, seen better alone."""

from __future__ import annotations

import random

from tests.histories.people import Habits
from tests.simulation.storms import FAULTS
from tests.simulation.world import Plan

ALL = tuple(FAULTS)
FAMILIES = (
    ALL,
    ALL,
    ("kill", "pause", "drain"),
    ("pause", "cut_off", "leases_fail"),
    ("store_fails", "store_is_slow", "cut_off"),
    ("bus_loses", "bus_is_slow", "bus_is_away", "bus_is_cut"),
    ("bus_stands_still", "drain", "pause"),
    ("drain", "kill", "bus_loses"),
    ("kill", "store_fails", "presence_is_lost"),
)


RESTLESS = Habits(think_s=2.0, talks_direct=0.6, talks_in_group=0.1, vanishes=0.3, away_s=2.5)
"""Of people who lose their network again and again, and talk to one in between."""
LEASES_MS = ((5_000,), (5_000,), (5_000,), (2_000, 9_000, 4_000))
"""The same for all nodes; now and then they were not configured alike."""
HABITS = (Habits(think_s=1.0), Habits(think_s=2.0), RESTLESS)


def plan_of(seed: int) -> Plan:
    """Always the same for a seed."""
    rng = random.Random(f"plan {seed}")
    return Plan(
        nodes=rng.choice([2, 3, 3, 3, 4]),
        faults=rng.choice(FAMILIES),
        mean_between_s=rng.choice([2.0, 4.0, 8.0]),
        habits=rng.choice(HABITS),
        strict=rng.random() < 0.3,
        leases_ms=rng.choice(LEASES_MS),
    )
