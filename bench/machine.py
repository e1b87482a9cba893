"""What the kernel knows: CPU time and memory of a process, pinning, limits, the machine itself."""

from __future__ import annotations

import os
import platform
import resource
import time
from pathlib import Path

from msgspec import Struct

SERVER_CPU = 0
LOAD_CPU = 1


class Machine(Struct, frozen=True, kw_only=True):
    """Where a result was measured."""

    cpu: str
    cores: int
    pinned: bool
    memory_mib: int
    system: str
    python: str


def describe() -> Machine:
    """This machine."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        cpu=_cpu_model(),
        cores=os.cpu_count() or 1,
        pinned=can_pin(),
        memory_mib=pages >> 20,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def can_pin() -> bool:
    """Whether server and load can each have a core of their own."""
    return hasattr(os, "sched_getaffinity") and {SERVER_CPU, LOAD_CPU} <= os.sched_getaffinity(0)


def pin(cpu: int) -> None:
    """Keep this process, and what it starts, on one core, if there are two."""
    if can_pin():
        os.sched_setaffinity(0, {cpu})


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, all its threads (ended ones too), to the nanosecond.

    Raises `OSError` if it is gone.
    """
    # clock_getcpuclockid(3) of the Linux kernel's ABI, which Python offers for threads alone.
    return time.clock_gettime((~pid << 3) | 2)


def private_kib(pid: int) -> float:
    """Memory that is the process's own (Private_Dirty), in KiB; the kernel's is not counted."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return float(line.split()[1])
    raise OSError(f"no Private_Dirty of process {pid}")


def filesystem(folder: Path) -> str:
    """The type of the file system that holds a folder, as `ext4`: it decides what `fsync` is."""
    folder = folder.resolve()
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    held = [mount for mount in mounts if folder.is_relative_to(mount[1])]
    return max(held, key=lambda mount: len(mount[1]))[2] if held else "unknown"


def raise_file_limit(wanted: int) -> None:
    """Allow this process, and what it starts, `wanted` open files.

    Raises `OSError` if the hard limit is lower.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard not in (-1, resource.RLIM_INFINITY) and hard < wanted:
        raise OSError(f"{wanted} open files are needed, but the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
