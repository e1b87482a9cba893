"""What a replay came to: figures for people and for machines."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from rich.table import Table

from broker.replay.attendance import Tally


@dataclass(frozen=True, slots=True)
class Report:
    """A replay's result. Latencies are from the time a message was to be sent until a client had
    it; `difference` is the first one that the proof found, or empty."""

    rooms: int
    persons: int
    messages: int
    entries: int
    deliveries: int
    reconnects: int
    seconds: float
    messages_per_second: float
    deliveries_per_second: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    proved: bool
    difference: str = ""

    @classmethod
    def of(cls, tally: Tally, *, rooms: int, persons: int, difference: str) -> Report:
        """The report of what was counted."""
        took = max(tally.seconds, 1e-9)
        p50, p99, p999 = (tally.latencies.quantile(share) for share in (0.5, 0.99, 0.999))
        return cls(
            rooms=rooms,
            persons=persons,
            messages=tally.messages,
            entries=tally.entries,
            deliveries=tally.deliveries,
            reconnects=tally.reconnects,
            seconds=round(tally.seconds, 3),
            messages_per_second=round(tally.messages / took, 1),
            deliveries_per_second=round(tally.deliveries / took, 1),
            p50_ms=round(p50 * 1000, 3),
            p99_ms=round(p99 * 1000, 3),
            p999_ms=round(p999 * 1000, 3),
            max_ms=round(tally.latencies.largest_seconds * 1000, 3),
            proved=not difference,
            difference=difference,
        )

    def json(self) -> str:
        """For machines."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=2) + "\n"

    def table(self) -> Table:
        """For people."""
        table = Table(show_header=False, box=None)
        table.add_column(justify="right", style="bold")
        table.add_column()
        rows = [
            (f"{self.messages:,}", f"messages; {self.persons:,} persons, rooms: {self.rooms}"),
            (f"{self.entries:,}", "entries, joins and leaves included"),
            (f"{self.messages_per_second:,.0f}", f"messages/s over {self.seconds:,.1f} s"),
            (f"{self.deliveries_per_second:,.0f}", f"deliveries/s, {self.deliveries:,} in all"),
            (f"{self.p50_ms:,.1f} ms", "p50 from intended send time to receipt"),
            (f"{self.p99_ms:,.1f} ms", "p99"),
            (f"{self.p999_ms:,.1f} ms", "p99.9"),
        ]
        for row in rows:
            table.add_row(*row)
        return table
