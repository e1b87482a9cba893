"""`parley serve --workers N`: the processes of one machine, kept running by one that does no more.

Each worker is a node like any other, and shares the ports with the rest. Nothing of the broker runs
here: what keeps the others must not fall over what they fall over.
"""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack

import trio

from broker.cli.failures import Failure
from broker.config import Config

log = logging.getLogger("parley.workers")

RESTART_FIRST_S = 0.1
"""Before a worker that ended is started again; twice as long each further time."""
RESTART_MAX_S = 30.0
"""No longer than that: a worker that cannot live is tried twice a minute, for ever."""
HEALTHY_S = 60.0
"""Who has lived so long is started again as if for the first time."""
INSIST_S = 10.0
"""After a second signal, workers that still live are killed."""
READY = b"ready"
"""What a worker prints once it serves; all else that it prints there is dropped."""

Command = Sequence[str]


def worker_command(own: Sequence[str], number: int) -> list[str]:
    """The command of a worker, from that of the parent: `… serve ARGUMENTS`."""
    place = own.index("serve") + 1
    return [*own[:place], "--worker", str(number), *own[place:]]


def check_ports(config: Config) -> None:
    """Refuse ports that somebody else has, or that we would have for two things: sharing them would
    go unnoticed, and no worker starts without its own. Raises `OSError`."""
    shared = [(config.http.host, config.http.port), (config.tcp.host, config.tcp.port)]
    with ExitStack() as held:
        for host, port in [*shared, *((config.http.host, own) for own in config.worker_http_ports)]:
            try:
                found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                for family, address in dict.fromkeys((each[0], each[4][:2]) for each in found):
                    held.enter_context(socket.create_server(address, family=family))
            except OSError as error:
                raise OSError(error.errno, error.strerror, f"{host}:{port}") from error


async def supervise(commands: Mapping[str, Command], *, on_ready: Callable[[], None]) -> bool:
    """Keep a process of each command running until a signal; whether all then ended in order.

    `on_ready` is called once, when all have said that they are ready. Raises `Failure` if one ends
    before that; the others are stopped then.
    """
    workers = Workers(commands, on_ready)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as outer:
            outer.start_soon(workers.on_signals, signals)
            await workers.run()
            outer.cancel_scope.cancel()
    return workers.in_order


class Workers:
    """The processes, by name. Each has a task that starts it again whenever it ends."""

    def __init__(self, commands: Mapping[str, Command], on_ready: Callable[[], None]) -> None:
        self.in_order = True
        self._commands = commands
        self._on_ready = on_ready
        self._processes: dict[str, trio.Process] = {}
        self._awaited = set(commands)
        self._serving: set[str] = set()
        self._failed: str | None = None
        self._stop = trio.Event()

    async def run(self) -> None:
        """Until all have ended after a signal. Raises `Failure`."""
        async with trio.open_nursery() as nursery:
            for name, command in self._commands.items():
                nursery.start_soon(self._keep, name, command)
        if self._failed is not None:
            raise Failure(self._failed)

    async def on_signals(self, signals: AsyncIterator[int]) -> None:
        """The first signal lets all drain, the second stops them at once.

        Not by another SIGTERM: a worker may have had two of those before anybody insisted.
        """
        async for _ in signals:
            if not self._stop.is_set():
                self._end_all()
                continue
            self.in_order = False
            self._signal(signal.SIGINT)
            await trio.sleep(INSIST_S)
            self._signal(signal.SIGKILL)

    def _end_all(self) -> None:
        self._stop.set()
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        for process in self._processes.values():
            process.send_signal(number)

    async def _keep(self, name: str, command: Command) -> None:
        """Run one worker again and again."""
        pause = RESTART_FIRST_S
        while not self._stop.is_set():
            started = trio.current_time()
            try:
                end: int | OSError = await self._live(name, command)
            except OSError as error:
                # It could not even be started: out of memory, or being installed anew.
                end = error
            if self._stop.is_set():
                self.in_order &= end == 0 or name not in self._serving
                return
            self._serving.discard(name)
            if self._awaited:
                self._failed = f"{name} did not start: it ended with {end}"
                self._end_all()
                return
            if trio.current_time() - started >= HEALTHY_S:
                pause = RESTART_FIRST_S
            log.error("%s ended with %s; it is started again in %.1f s", name, end, pause)
            with trio.move_on_after(pause):
                await self._stop.wait()
            pause = min(2 * pause, RESTART_MAX_S)

    async def _live(self, name: str, command: Command) -> int:
        """One life of a worker; its exit code, negative for a signal. Raises `OSError` if it cannot
        be started."""
        # Its standard input ends with this process, however that ends; and it is in no group that
        # Ctrl-C reaches, as it is us who tell it when to drain.
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._processes[name] = process
        if self._stop.is_set():
            process.terminate()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with process.stdin, process.stdout, trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, name, process.stdout)
                code = await process.wait()
                nursery.cancel_scope.cancel()
        finally:
            del self._processes[name]
            process.kill()
        return code

    async def _listen(self, name: str, output: trio.abc.ReceiveStream) -> None:
        """Wait for the word that it is ready, and let it never wait for us to read on."""
        said = b""
        async for chunk in output:
            said = said[-len(READY) :] + chunk
            if READY in said and name not in self._serving:
                self._serving.add(name)
                self._on_word(name)

    def _on_word(self, name: str) -> None:
        if name in self._awaited:
            self._awaited.remove(name)
            if not self._awaited and not self._stop.is_set():
                self._on_ready()
