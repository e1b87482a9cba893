"""What tests of the Redis backend share: a look at the server beside it, and patience."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from storage.errors import Unavailable
from storage.redis import routes
from storage.redis.link import Answer, Command, Link
from storage.redis.pipeline import Pipeline
from storage.redis.settings import parse_url

PATIENCE_S = 20.0
POLL_S = 0.02


def ask(url: str, *command: bytes | str) -> Answer:
    """The answer of the server itself, over a connection of its own."""
    settings = parse_url(url)
    link = Link(settings, settings.addresses[0])
    try:
        return link.exchange([command])[0]
    finally:
        link.close()


async def until(reached: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again until it is so; what raises `Unavailable` is not so yet."""
    with trio.fail_after(PATIENCE_S):
        while True:
            try:
                if await reached():
                    return
            except Unavailable:
                pass
            await trio.sleep(POLL_S)


def hold_up_the_loop(until: Callable[[], bool]) -> None:
    """Nothing in the loop runs before it is so, as while something large is worked out."""
    deadline = time.monotonic() + PATIENCE_S
    while not until():
        assert time.monotonic() < deadline
        time.sleep(POLL_S / 10)


@asynccontextmanager
async def open_pipeline(url: str, door: Door | None = None) -> AsyncIterator[Pipeline]:
    """A pipeline to this server; with a door, nothing passes until it is opened."""
    find = partial(routes.find, parse_url(url))
    pipeline = Pipeline(HeldRoute(find(), door) if door else find(), find)
    try:
        yield pipeline
    finally:
        if door:
            door.open()
        await pipeline.aclose()


class Door:
    """Holds a thread up."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._reached = threading.Event()

    def __call__(self) -> None:
        self._reached.set()
        assert self._open.wait(PATIENCE_S)

    def open(self) -> None:
        self._open.set()

    def shut(self) -> None:
        self._reached.clear()
        self._open.clear()

    async def reached(self) -> None:
        await trio.to_thread.run_sync(self._reached.wait)


class HeldRoute:
    """A real route behind a door; remembers what passed it, pipeline by pipeline."""

    def __init__(self, route: routes.Route, door: Door) -> None:
        self._route = route
        self._door = door
        self.interruptions = 0

    def exchange(self, commands: Sequence[Command]) -> list[Answer]:
        self._door()
        return self._route.exchange(commands)

    def close(self) -> None:
        self._route.close()
