"""Where a chat is written and read: a terminal with a prompt, or plain lines through a pipe.

Neither knows a conversation. What users wrote is stripped of all that could steer a terminal.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.patch_stdout import patch_stdout
from rich.console import Console
from rich.text import Text

LINE_MAX_CHARS = 65_536
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

    def close(self) -> None:
        """End `lines` from outside."""


class Terminal:
    """A prompt at the bottom, the conversation above it.

    The prompt has an event loop of its own, so it runs in a thread; that thread touches nothing
    of ours but through trio.
    """

    interactive = True

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._status = ""
        self._prompt: PromptSession[str] = PromptSession(
            "> ", bottom_toolbar=lambda: self._status or None
        )
        self._closed = False

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
        """What the user enters, until Ctrl-D, Ctrl-C or `close`."""
        changed = self._prompt.default_buffer.on_text_changed
        changed += lambda _: trio.from_thread.run_sync(typed)
        while not self._closed:
            try:
                yield await trio.to_thread.run_sync(self._prompt.prompt)
            except (EOFError, KeyboardInterrupt):
                return

    def close(self) -> None:
        """Leave the prompt, so that its thread ends and the terminal is as it was."""
        self._closed = True
        app = self._prompt.app
        if app.is_running and app.loop is not None:
            app.loop.call_soon_threadsafe(lambda: app.exit(exception=EOFError()))


class Pipe:
    """Lines in, lines out, for scripts."""

    interactive = False

    def __init__(self) -> None:
        self._closed = False
        self._waiting: trio.CancelScope | None = None

    def shown(self) -> AbstractContextManager[object]:
        """Nothing to prepare."""
        return nullcontext()

    def show(self, line: Text) -> None:
        """Print a line."""
        print(line.plain, flush=True)

    def status(self, text: str) -> None:
        """There is no place for it."""

    async def lines(self, typed: Callable[[], None]) -> AsyncIterator[str]:
        """The lines of standard input, until its end or `close`."""
        while not self._closed:
            line = ""
            with trio.CancelScope() as self._waiting:
                line = await trio.to_thread.run_sync(_read_line, abandon_on_cancel=True)
            if not line:
                return
            yield line.rstrip("\r\n")

    def close(self) -> None:
        """Wait for no more lines; a thread that waits for one ends with the process."""
        self._closed = True
        if self._waiting is not None:
            self._waiting.cancel()


def _read_line() -> str:
    return sys.stdin.readline(LINE_MAX_CHARS)


def clean(text: str) -> str:
    """Text of others, without what could move the cursor or reverse the direction of reading."""
    return "".join(
        char if char.isprintable() or char in JOINERS else "\N{REPLACEMENT CHARACTER}"
        for char in text.replace("\t", " ").replace("\n", " ")
    )
