"""Tables for people from a cluster's result file, and their place in docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.cluster.results import CaseResult, ClusterReport, Target
from bench.report import amount, replaced

BEGIN = "<!-- begin of the generated part: parley bench --cluster --update-docs -->"
END = "<!-- end of the generated part: parley bench --cluster -->"


def markdown(report: ClusterReport) -> str:
    """Everything that a reader needs to judge the figures."""
    parts = [_setting(report), _targets(report), _notes(report), _figures(report), _shares(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def update_file(file: Path, report: ClusterReport) -> None:
    """Replace the generated part of a document. Raises `ValueError`, `OSError`."""
    file.write_text(replaced(file.read_text(), markdown(report), BEGIN, END))


def _setting(report: ClusterReport) -> str:
    setting, machine = report.setting, report.setting.machine
    versions = ", ".join(f"{name} {version}" for name, version in setting.versions.items())
    return (
        f"    {setting.command}\n\n"
        f"{setting.started}, revision {setting.revision}; {machine.cpu}, {machine.cores} cores for "
        f"all processes together, none pinned; {machine.memory_mib} MiB, {machine.system}, "
        f"Cassandra on {setting.storage} (one node, `commitlog_sync: batch`, warm); {versions}. "
        f"{setting.rounds} rounds, windows of {setting.window_s:g} s, Parley over TCP msgpack."
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown; nothing if it has no rows."""
    lines = [head, ["---"] * len(head), *rows] if rows else []
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _targets(report: ClusterReport) -> str:
    head = ["case", "load", "what", "target", "reached", ""]
    rows = [
        [result.case, result.load, target.what, *_goal(target)]
        for result in report.cases
        for target in result.targets
    ]
    return table(head, rows)


def _goal(target: Target) -> list[str]:
    unit = " ×" if target.times else f" {target.unit}".rstrip()
    bound = "≤" if target.at_most else "≥"
    goal = "–" if target.value is None else f"{bound} {target.value:g}{unit}"
    reached = "–" if target.reached is None else f"{target.reached:.2f}{unit}"
    verdict = {True: "met", False: "**missed**", None: "not measured"}[target.met]
    return [goal, reached, "" if target.value is None else verdict]


def _notes(report: ClusterReport) -> str:
    lines = [
        f"- {result.case}: {line}"
        for result in report.cases
        for line in [*result.notes, *result.failures]
    ]
    return "\n".join(lines)


def _figures(report: ClusterReport) -> str:
    rows = [row for result in report.cases for row in _figure_rows(result)]
    return table(["case", "figure", "median", "unit", "least – most"], rows)


def _figure_rows(result: CaseResult) -> Iterator[list[str]]:
    for figure in result.figures:
        if not figure.rounds:
            continue
        least, most = min(figure.rounds), max(figure.rounds)
        spread = f"{amount(least)} – {amount(most)}" if len(figure.rounds) > 1 else ""
        yield [result.case, figure.name, amount(figure.median), figure.unit, spread]


def _shares(report: ClusterReport) -> str:
    names = list(
        dict.fromkeys(name for r in report.cases for share in r.shares for name in share.cores)
    )
    rows = [
        [result.case, share.variant]
        + [f"{share.cores[name]:.0%}" if name in share.cores else "" for name in names]
        for result in report.cases
        for share in result.shares
    ]
    return table(["case", "cores used by", *names], rows)
