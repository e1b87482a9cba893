"""A bound on the CPU time of a process, by the kernel's control groups (both versions of them).

Where all servers and the load client share a few cores, a second worker takes its time from the
others, and what it is worth cannot be seen. With the same small budget for each worker, it can.
Nothing else is changed: not the scheduler, not who runs on which core.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

PERIOD_US = 10_000
"""A budget is given anew so often: a process that has used it up waits no longer than this."""
MOUNTS = Path("/proc/self/mounts")


class Controller(NamedTuple):
    """Where groups with a budget of CPU time can be made, and of which version they are."""

    root: Path
    version: int

    def limit(self, group: Path, cores: float) -> None:
        """Let all processes of a group have so much of a core together. Raises `OSError`."""
        quota = round(cores * PERIOD_US)
        if self.version == 2:
            (group / "cpu.max").write_text(f"{quota} {PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))


def controller(mounts: str) -> Controller:
    """The one that these lines of /proc/self/mounts name. Raises `OSError` if there is none, or
    groups cannot be made in it, which most systems allow root alone."""
    for line in mounts.splitlines():
        _, where, kind, options = line.split()[:4]
        root = Path(where)
        if kind == "cgroup" and "cpu" in options.split(","):
            found = Controller(root, 1)
        elif kind == "cgroup2" and "cpu" in (root / "cgroup.controllers").read_text().split():
            (root / "cgroup.subtree_control").write_text("+cpu")
            found = Controller(root, 2)
        else:
            continue
        if not os.access(root, os.W_OK):
            raise PermissionError(errno.EACCES, "control groups cannot be made here", where)
        return found
    raise OSError("no control groups for CPU time are mounted")


@contextlib.contextmanager
def held_to(found: Controller, cores: float, pids: Sequence[int]) -> Iterator[None]:
    """In the block, each process and its threads have at most so much of a core.

    Raises `OSError`.
    """
    with contextlib.ExitStack() as stack:
        for pid in pids:
            stack.enter_context(_group(found, cores, pid))
        yield


@contextlib.contextmanager
def _group(found: Controller, cores: float, pid: int) -> Iterator[None]:
    group = found.root / f"parley-bench-{os.getpid()}-{pid}"
    group.mkdir()
    try:
        found.limit(group, cores)
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # it may have ended meanwhile
            (found.root / "cgroup.procs").write_text(str(pid))
        group.rmdir()
