"""What holds for every file: imports go one way, modules say what they are for, none is too long,
and nothing of the machine it was written on is in it."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("storage", "broker", "actors", "api")
"""What is installed."""
FILE_MAX_LINES = 400

SHARED = frozenset({"broker.wire", "storage"})
SETTINGS = frozenset({"broker.config"})
BROKER = SHARED | SETTINGS | {"actors", "broker.names", "broker.running", "broker.security"}
LAYERS: dict[str, frozenset[str]] = {
    "storage": frozenset(),
    "broker.wire": frozenset(),
    "broker.running": frozenset(),
    "broker.config": frozenset({"broker.wire"}),
    "broker.config_sources": SETTINGS,
    "broker.logs": SETTINGS,
    "broker.names": SHARED,
    "broker.security": SETTINGS | {"broker.wire"},
    "broker.stores": SHARED | SETTINGS | {"broker.config_sources", "broker.security"},
    "actors": SHARED,
    "broker.metrics": SHARED | {"actors"},
    "broker.listener": SHARED | {"actors", "broker.running"},
    "broker.drain": SHARED | {"actors"},
    "broker.commands": BROKER,
    "api": BROKER | {"broker.commands", "broker.metrics"},
    "broker.app": BROKER
    | {"api", "broker.commands", "broker.drain", "broker.listener", "broker.metrics"}
    | {"broker.stores"},
    "broker.client": frozenset({"broker.wire"}),
    "broker.replay": frozenset({"broker.client", "broker.wire"}),
    "broker.cli": SHARED
    | SETTINGS
    | {
        "bench",  # the repository's, imported when it is there
        "broker.app",
        "broker.client",
        "broker.config_sources",
        "broker.logs",
        "broker.names",
        "broker.replay",
        "broker.running",
        "broker.security",
        "broker.stores",
    },
}
"""What each layer may import, besides itself. A lower one that needs a higher one is handed it."""

MACHINE_PATHS = re.compile(
    r"(?<![\w.$}~/-])/(?:work|home|root|Users|tmp|private|mnt|scratch|workspace|var/folders)/[\w.-]+"
)
PACKAGE_INDEXES = re.compile(r"index-url|artifactory|devpi|nexus", re.IGNORECASE)


def modules(*packages: str) -> list[tuple[str, Path]]:
    """The dotted name and the file of every module."""
    paths = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    parts = [path.relative_to(ROOT).with_suffix("").parts for path in paths]
    names = [".".join(part).removesuffix(".__init__") for part in parts]
    return list(zip(names, paths, strict=True))


def imported(path: Path) -> Iterator[str]:
    """Every module or name that a file imports, wherever in it, in full."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(name: str) -> str | None:
    """The layer that a dotted name is in; the name itself for a part that has no place yet.

    None for what is not ours, and for `broker` alone, which holds nothing.
    """
    found = [layer for layer in LAYERS if name == layer or name.startswith(layer + ".")]
    if found:
        return found[0]
    first = name.partition(".")[0]
    return name if name != "broker" and first in (*PACKAGES, "bench", "tests") else None


@pytest.mark.parametrize(("name", "path"), modules(*PACKAGES))
def test_imports_go_one_way(name: str, path: Path) -> None:
    layer = layer_of(name)
    if name == "broker":
        assert not list(imported(path)), "whoever imports a part of it imports this first"
        return
    assert layer in LAYERS, f"{name} is in no layer: give it its place in LAYERS"
    wrong = {
        target
        for target in imported(path)
        if (its := layer_of(target)) is not None
        and its != layer
        and its not in LAYERS[layer]
        and its.partition(".")[0] not in LAYERS[layer]
    }
    assert not wrong, f"{name} ({layer}) may not import {sorted(wrong)}"


def test_the_layers_have_no_cycle() -> None:
    placed: set[str] = {"bench"}
    while placed < LAYERS.keys() | {"bench"}:
        ready = {layer for layer, below in LAYERS.items() if below <= placed} - placed
        assert ready, f"a cycle among {sorted(LAYERS.keys() - placed)}"
        placed |= ready


@pytest.mark.parametrize(("name", "path"), modules(*PACKAGES, "bench", "tests"))
def test_a_module_says_what_it_is_for(name: str, path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not tree.body or ast.get_docstring(tree), f"{path}: no docstring"


def test_no_file_is_too_long() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for _, path in modules(*PACKAGES)
    }
    long = {name for name, length in lengths.items() if length > FILE_MAX_LINES}
    assert not long


def tracked() -> list[Path]:
    """The files of the repository; all there are where it is no repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        return [path for _, path in modules(*PACKAGES, "bench", "tests")] + [*ROOT.glob("*.*")]
    # What was removed and is not yet committed is still listed.
    return [path for name in listed.stdout.split("\0") if (path := ROOT / name).is_file()]


def test_no_file_tells_of_the_machine_it_was_written_on() -> None:
    found = []
    for path in tracked():
        if path == Path(__file__):
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if match := MACHINE_PATHS.search(line) or PACKAGE_INDEXES.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("line", ["see /tmp/build/x", "'/home/me/parley'", "--index-url https://x"])
def test_what_tells_of_a_machine_is_recognised(line: str) -> None:
    assert MACHINE_PATHS.search(line) or PACKAGE_INDEXES.search(line)


@pytest.mark.parametrize(
    "line", ["/var/lib/parley", "/etc/parley", "http://host/home/x", "~/work/"]
)
def test_what_belongs_to_a_server_is_not(line: str) -> None:
    assert not MACHINE_PATHS.search(line)
    assert not PACKAGE_INDEXES.search(line)
