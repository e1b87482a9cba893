"""Runs Parley's command line under a profiler that works only while the load is on.

`python -m bench.profiled FILE serve …`: SIGUSR1 starts it, SIGUSR2 ends it and writes FILE. A name
in `.prof` gets exact calls (cProfile: distorts, read it with pstats); any other gets samples of the
main thread's stack (distorts little) as collapsed stacks, which flame graph tools read, and a table
of the heaviest functions and lines in FILE.txt. Samples come by the process's CPU clock: what other
threads use, as the store's writer, counts where the main thread is meanwhile.
"""

from __future__ import annotations

import cProfile
import runpy
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType

START = signal.SIGUSR1
STOP = signal.SIGUSR2
INTERVAL_S = 0.001
"""Kernels round it up to their own tick, often 4 ms."""
STACKS_MAX = 100_000
DEPTH_MAX = 80
TABLE_LINES = 40

Site = tuple[CodeType, int]


class Sampler:
    """Counts stacks, as seen by the signal handler of a profiling timer."""

    def __init__(self) -> None:
        self.stacks: Counter[tuple[CodeType, ...]] = Counter()
        self.lines: Counter[Site] = Counter()

    def start(self) -> None:
        """Sample from now on."""
        signal.signal(signal.SIGPROF, self.sample)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def stop(self) -> None:
        """Sample no more."""
        signal.setitimer(signal.ITIMER_PROF, 0)

    def sample(self, _signal: int, frame: FrameType | None) -> None:
        """Note the stack that the timer interrupted."""
        if frame is None or len(self.stacks) >= STACKS_MAX:
            return
        self.lines[frame.f_code, frame.f_lineno or 0] += 1
        stack: list[CodeType] = []
        while frame is not None and len(stack) < DEPTH_MAX:
            stack.append(frame.f_code)
            frame = frame.f_back
        self.stacks[tuple(reversed(stack))] += 1

    def write(self, file: Path) -> None:
        """Collapsed stacks, and the table beside them."""
        stacks = self.stacks.items()
        collapsed = [f"{';'.join(map(name, stack))} {count}\n" for stack, count in stacks]
        file.write_text("".join(collapsed))
        file.with_name(file.name + ".txt").write_text(self.table())

    def table(self) -> str:
        """The heaviest functions, by themselves and with what they call, and the heaviest lines."""
        own: Counter[str] = Counter()
        with_callees: Counter[str] = Counter()
        for stack, count in self.stacks.items():
            own[name(stack[-1])] += count
            for code in set(stack):
                with_callees[name(code)] += count
        lines = Counter(
            {f"{name(code)}:{line}": count for (code, line), count in self.lines.items()}
        )
        total = max(1, sum(own.values()))
        parts = [f"{total} samples of the main thread, taken by the CPU time of all threads\n"]
        for title, counts in (
            ("by itself", own),
            ("with what it calls", with_callees),
            ("lines", lines),
        ):
            parts.append(f"\n{title}\n")
            top = counts.most_common()
            # What is on every stack, as the way from `main` to the loop, tells nothing.
            told = [(where, count) for where, count in top if count < total][:TABLE_LINES]
            parts += [f"{count / total:7.1%}  {where}\n" for where, count in told]
        return "".join(parts)


def name(code: CodeType) -> str:
    """A function as it is told apart in a profile: the end of its file's path and its name."""
    return f"{'/'.join(Path(code.co_filename).parts[-2:])}:{code.co_qualname}"


def _profiler(file: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    """How to start, and how to stop and write."""
    if file.suffix == ".prof":
        exact = cProfile.Profile()

        def write_exact() -> None:
            exact.disable()
            exact.dump_stats(str(file))

        return exact.enable, write_exact
    sampler = Sampler()

    def write_samples() -> None:
        sampler.stop()
        sampler.write(file)

    return sampler.start, write_samples


def main() -> None:
    """Arm the signals, then be `python -m broker.cli` with the remaining arguments."""
    file, *arguments = sys.argv[1:]
    start, stop = _profiler(Path(file))
    signal.signal(START, lambda *_: start())
    signal.signal(STOP, lambda *_: stop())
    sys.argv = ["parley", *arguments]
    runpy.run_module("broker.cli", run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()
