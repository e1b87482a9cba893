"""What `pip install` puts on a machine: every file that Parley runs on, and none of its tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TREES = ("broker", "actors", "storage", "api")


def test_all_that_it_runs_on_is_installed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for tree in TREES:
        shutil.copytree(ROOT / tree, source / tree, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source / file)
    (source / "tests").mkdir()
    (source / "tests" / "__init__.py").touch()
    there = {str(path.relative_to(source)) for tree in TREES for path in _files(source / tree)}
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--no-index", "-w", tmp_path, source], check=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == there


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
