"""Where a chat is written and read: a terminal with a prompt, or plain lines through a pipe.

Neither knows a conversation. What users wrote is stripped of all that could steer a terminal.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.patch_stdout import patch_stdout
from rich.console import Console
from rich.text import Text

LINE_MAX_CHARS = 65_536
LEAVE_EVERY_S = 0.05
JOINERS = frozenset("\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")
"""Invisible, and yet part of words and emoji."""


class Screen(Protocol):
    """What a chat needs of its surroundings."""

    interactive: bool

    def shown(self) -> AbstractContextManager[object]:
        """For as long as the chat lasts."""

    def show(self, line: Text) -> None:
        """Print a line above the prompt."""

    def status(self, text: str) -> None:
        """Replace what stands below the prompt."""

    def lines(self, typed: Callable[[], None]) -> AsyncIterator[str]:
        """What the user enters, until the end; `typed` is called at every key."""


class Terminal:
    """A prompt at the bottom, the conversation above it.

    The prompt has an event loop of its own, so it runs in a thread; that thread touches nothing
    of ours but through trio.
    """

    interactive = True

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._status = ""
        # What was entered comes back as a line of the conversation: once is enough.
        self._prompt: PromptSession[str] = PromptSession(
            "> ", bottom_toolbar=lambda: self._status or None, erase_when_done=True
        )

    def shown(self) -> AbstractContextManager[object]:
        """Let what is printed appear above the prompt."""
        return patch_stdout(raw=True)

    def show(self, line: Text) -> None:
        """Print a line above the prompt."""
        self._console.print(line, soft_wrap=True)

    def status(self, text: str) -> None:
        """Replace what stands below the prompt."""
        if text != self._status:
            self._status = text
            self._prompt.app.invalidate()

    async def lines(self, typed: Callable[[], None]) -> AsyncIterator[str]:
        """What the user enters, until Ctrl-D or Ctrl-C."""
        token = trio.lowlevel.current_trio_token()

        def changed(buffer: Buffer) -> None:
            if buffer.text and not buffer.text.startswith("/"):
                token.run_sync_soon(typed, idempotent=True)

        self._prompt.default_buffer.on_text_changed += changed
        while True:
            try:
                yield await self._entered()
            except (EOFError, KeyboardInterrupt):
                return

    async def _entered(self) -> str:
        ended = threading.Event()

        def prompt() -> str:
            try:
                return self._prompt.prompt()
            finally:
                ended.set()

        try:
            return await trio.to_thread.run_sync(prompt, abandon_on_cancel=True)
        finally:
            # Left early, the prompt must first give back the terminal as it was.
            if not ended.is_set():
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._give_back, ended)

    def _give_back(self, ended: threading.Event) -> None:
        app = self._prompt.app

        def leave() -> None:
            if app.future is not None and not app.future.done():
                app.exit(exception=EOFError())

        # Repeated, since a prompt that has only begun cannot be left yet.
        while not ended.wait(LEAVE_EVERY_S):
            if app.loop is not None:
                app.loop.call_soon_threadsafe(leave)


class Pipe:
    """Lines in, lines out, for scripts."""

    interactive = False

    def shown(self) -> AbstractContextManager[object]:
        """Nothing to prepare."""
        return nullcontext()

    def show(self, line: Text) -> None:
        """Print a line."""
        print(line.plain, flush=True)

    def status(self, text: str) -> None:
        """There is no place for it."""

    async def lines(self, typed: Callable[[], None]) -> AsyncIterator[str]:
        """The lines of standard input, until its end."""
        while line := await trio.to_thread.run_sync(_read_line, abandon_on_cancel=True):
            yield line.rstrip("\r\n")


def _read_line() -> str:
    return sys.stdin.readline(LINE_MAX_CHARS)


def clean(text: str) -> str:
    """Text of others, without what could move the cursor or reverse the direction of reading."""
    return "".join(
        char if char.isprintable() or char in JOINERS else "\N{REPLACEMENT CHARACTER}"
        for char in text.replace("\t", " ").replace("\n", " ")
    )
