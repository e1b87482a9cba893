"""Tables for people from a result file: Markdown, and its place in docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path

from bench.jobs import Latency, System
from bench.results import CaseResult, Report

BEGIN = "<!-- begin of the generated part: parley bench --update-docs -->"
END = "<!-- end of the generated part -->"

TITLES: dict[System, str] = {
    "parley": "Parley",
    "nats": "NATS (stores nothing)",
    "floor": "floor (stores nothing)",
    "naive": "naive (stores nothing)",
}


def amount(value: float | None) -> str:
    """A number of three figures: 2.31 M, 84.2 k, 6.52; a dash for none."""
    if value is None:
        return "–"
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return (
                f"{value / size:.3g}{unit}" if value < 999.5 * size else f"{value / size:.0f}{unit}"
            )
    return f"{value:.3g}"


def markdown(report: Report) -> str:
    """Everything that a reader needs to judge the figures."""
    parts = [_setting(report), _table(report), *_explanations(report), _latencies(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def update(document: str, report: Report) -> str:
    """The document with the generated part replaced. Raises `ValueError` if its marks are gone."""
    return replaced(document, markdown(report), BEGIN, END)


def replaced(document: str, text: str, begin: str, end: str) -> str:
    """The document with `text` between two marks. Raises `ValueError` if one is gone."""
    before, found, rest = document.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError("the marks of the generated part are missing")
    return f"{before}{begin}\n\n{text}\n{end}{after}"


def update_file(file: Path, report: Report) -> None:
    """`update` for a file. Raises `ValueError`, `OSError`."""
    file.write_text(update(file.read_text(), report))


def _setting(report: Report) -> str:
    setting = report.setting
    machine = setting.machine
    versions = ", ".join(f"{name} {version}" for name, version in setting.versions.items())
    pinned = "server and load each on a core of their own" if machine.pinned else "not pinned"
    lines = [
        f"    {setting.command}",
        "",
        f"{setting.started}, revision {setting.revision}; {machine.cpu}, {machine.cores} cores "
        f"({pinned}), {machine.memory_mib} MiB, {machine.system}, databases on {setting.storage}; "
        f"{versions}. {setting.rounds} rounds, windows of {setting.window_s:g} s, "
        f"Parley over {'WebSocket' if setting.transport == 'ws' else 'TCP'} msgpack.",
    ]
    if setting.profiled:
        lines.append("\n**Under a profiler: no figures to quote.**")
    return "\n".join(lines)


def _table(report: Report) -> str:
    systems: list[System] = [
        system for system in TITLES if any(system in result.rounds for result in report.cases)
    ]
    head = [
        "case",
        "load",
        "unit",
        *(TITLES[system] for system in systems),
        "target",
        "reached",
        "",
    ]
    rows = [head, ["---"] * len(head)]
    rows += [_row(result, systems) for result in report.cases]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(result: CaseResult, systems: list[System]) -> list[str]:
    case = result.definition
    unit = case.unit if case.unit == "KB each" else f"{case.unit}/cpu-s"
    target, than = case.target, case.target.than
    bound = "≤" if target.at_most else "≥"
    goal = f"{bound} {target.value:g} × {than}" if than else f"{bound} {amount(target.value)}"
    reached = result.reached
    got = f"{reached:.2f} ×" if than and reached is not None else amount(reached)
    verdict = {True: "met", False: "**missed**", None: "not measured"}[result.met]
    medians = [amount(result.median(system)) for system in systems]
    return [case.name, case.load, unit, *medians, goal, got, verdict]


def _explanations(report: Report) -> list[str]:
    """What the table alone would hide."""
    parts = [
        "Medians over the rounds, per second of the server's own CPU time (all its threads); what "
        "is reached is the median of the rounds' ratios. Parley writes every entry to SQLite "
        "(`synchronous=FULL`) before anyone hears of it; NATS, the floor and the naive server keep "
        "nothing. Memory is the server's private memory; the kernel's for sockets is not counted."
    ]
    lines: list[str] = []
    for result in report.cases:
        bound = [system for system in result.rounds if result.load_bound(system)]
        lines += [f"{result.case}, {name}: the load client was the bottleneck" for name in bound]
        lines += [f"{result.case}, {failure}" for failure in result.failures]
    return [*parts, "\n".join(f"- {line}" for line in lines)]


def _latencies(report: Report) -> str:
    """Of the last round, under full load: a sign of queues, not of an idle server's speed."""
    rows = []
    for result in report.cases:
        for system in result.rounds:
            outcomes = result.outcomes(system)
            if not outcomes or (last := outcomes[-1]).ack is None:
                continue
            shares = [result.share(system, of_load=of_load) for of_load in (False, True)]
            checked = last.checks
            rows.append(
                [
                    result.case,
                    system,
                    _latency(last.ack),
                    _latency(last.delivery),
                    " / ".join(f"{share:.0%}" for share in shares if share is not None),
                    f"{checked.deliveries:,}" if checked and not checked.problems else "**no**",
                ]
            )
    if not rows:
        return ""
    head = [
        "case",
        "system",
        "publish → answer, p50 / p99 ms",
        "publish → delivery, p50 / p99 ms",
        "CPU of server / load client",
        "deliveries checked",
    ]
    table = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in table)


def _latency(latency: Latency | None) -> str:
    return "–" if latency is None else f"{latency.p50_ms:.2f} / {latency.p99_ms:.2f}"
