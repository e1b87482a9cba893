"""README.md: its code runs, its links lead somewhere, its dependencies are those of the project."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import trio

from tests.docs.markdown import DOCS, ROOT, codes, fences, table, tables
from tests.helpers.broker import Broker

README = (ROOT / "README.md").read_text()
PAGES = {
    path: path.read_text() for path in [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]
}
LINK = re.compile(r"\[[^\]]*\]\(([^)]+)\)")
LINES_MAX = 12
"""Ten lines, and the call that runs them with the blank before it."""


async def test_the_first_conversation_is_had(
    broker: Broker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (source,) = fences(README, "python")
    started: list[Any] = []
    monkeypatch.setattr(trio, "run", started.append)
    exec(compile(source, "README.md", "exec"), {"__name__": "__main__"})
    (main,) = started
    await main(f"ws://{broker.running.http}/ws")
    assert capsys.readouterr().out == "Hello, Ben!\n"


def test_it_is_short() -> None:
    (source,) = fences(README, "python")
    assert len([line for line in source.splitlines() if line.strip()]) <= LINES_MAX


def names(specifiers: list[str]) -> list[str]:
    return [re.split(r"[<>=!~\[; ]", each, maxsplit=1)[0] for each in specifiers]


def test_dependencies_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed, extra = (
        [row[0] for row in each.rows]
        for each in tables(README)
        if each.header == ["package", "why"]
    )
    assert needed == names(project["dependencies"])
    groups = project["optional-dependencies"].values()
    there = {name for group in groups for name in names(group)} - {project["name"]}
    assert sorted(extra) == sorted(there)


def test_the_map_leads_to_files() -> None:
    for row in table(README, "question", "look at"):
        for name in codes(row[1]):
            assert name.startswith("parley ") or (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Any) -> None:
    for link in LINK.findall(PAGES[page]):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file) if file else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings have, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_the_scripts_are_there() -> None:
    for name in ("scripts/serve", "scripts/test"):
        assert f"    {name}\n" in README
        assert (ROOT / name).stat().st_mode & 0o111


def test_the_changelog_begins_with_what_is_not_released() -> None:
    headings = re.findall(r"(?m)^## (.*)$", (ROOT / "CHANGELOG.md").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert headings[0] == "[Unreleased]"
    assert version in (ROOT / "CHANGELOG.md").read_text()
