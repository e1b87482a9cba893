"""docs/architecture.md against the code: the names that it mentions, and every bound."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from actors.node import Options
from tests.docs.blocks import renewed
from tests.docs.markdown import DOCS, ROOT, code, table
from tests.test_layers import PACKAGES, modules

TEXT = (DOCS / "architecture.md").read_text()
REFERENCE = re.compile(r"`([\w/]+\.py)(?::([\w.]+))?`")
FOLDER = re.compile(r"`((?:\w+/)+)`")

BOUND = re.compile(r"MAX|AT_ONCE|BEFORE_YIELD|TIMEOUT_S$|^BACKLOG$|^WORKERS$|RECEIVE_BYTES")
"""What a bound on something that grows is called."""
ELSEWHERE = ("broker/wire/limits.py", "broker/client/", "broker/cli/", "broker/replay/")
"""In protocol.md, or of no account for a running broker."""
FORMATS = {"INT_MAX", "SHORT_MAX_BYTES", "HEADER_MAX_BYTES", "PORT_MAX"}
"""Parts of a format, not bounds."""

REFERENCES = sorted(set(REFERENCE.findall(TEXT)))


@pytest.mark.parametrize(("file", "name"), REFERENCES)
def test_what_is_named_exists(file: str, name: str) -> None:
    tree: Any = ast.parse((ROOT / file).read_text())
    for part in filter(None, name.split(".")):
        found = [node for node in ast.walk(tree) if part in defined(node) and node is not tree]
        assert found, f"there is no {part} in {file}"
        tree = found[0]


def defined(node: ast.AST) -> set[str]:
    """The name that a statement gives, if any."""
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return {name}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
    return set()


@pytest.mark.parametrize("folder", sorted(set(FOLDER.findall(TEXT))))
def test_folders_exist(folder: str) -> None:
    assert (ROOT / folder).is_dir()


def bounds_told_of() -> list[str]:
    return [code(row[0]) for row in table(TEXT, "bound", "value")]


def test_no_bound_is_told_twice() -> None:
    assert [bound for bound, times in Counter(bounds_told_of()).items() if times > 1] == []


def test_every_bound_has_the_value_that_is_told() -> None:
    assert renewed(TEXT) == TEXT, "renew with: python -m tests.docs.blocks"


def test_no_bound_is_missing() -> None:
    there = {
        f"{file}:{name}"
        for _, path in modules(*PACKAGES)
        if not (file := str(path.relative_to(ROOT))).startswith(ELSEWHERE)
        for name in constants(path)
        if BOUND.search(name) and name not in FORMATS
    }
    assert there - set(bounds_told_of()) == set()


def constants(path: Path) -> set[str]:
    """Public numbers of a module."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        numbers = isinstance(node, ast.Assign) and not any(
            isinstance(part, ast.Name | ast.Call | ast.Dict | ast.List | ast.Tuple | ast.Constant)
            and not (isinstance(part, ast.Constant) and isinstance(part.value, int | float))
            for part in ast.walk(node.value)
        )
        names |= defined(node) if numbers else set()
    return {name for name in names if name.isupper() and not name.startswith("_")}


def test_what_the_configuration_does_not_decide_is_told_of() -> None:
    tree = ast.parse((ROOT / "broker" / "app.py").read_text())
    (call,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Options"
    )
    fixed = set(Options.__struct_fields__) - {keyword.arg for keyword in call.keywords}
    told = {name.rpartition(".")[2] for name in bounds_told_of() if ":Options." in name}
    assert told == fixed
