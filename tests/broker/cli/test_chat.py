"""`parley chat`: through a pipe, in a terminal, and line by line."""

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import cast

import pytest
import trio
import trustme
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from broker.cli.chat_lines import line_of
from broker.cli.chat_screen import clean
from broker.cli.chat_session import Chat
from broker.client import Client, ConnectionChanged, Message
from tests.broker.cli.running import TIMEOUT_S, Broker, clean_environment, parley
from tests.broker.cli.running import broker as running_broker

NAMES = {5: "ann", 9: "bob"}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for all; each test has its own people."""
    with running_broker(tmp_path_factory.mktemp("chat") / "data") as running:
        yield running


def chat(broker: Broker, name: str, *arguments: str, stdin: str) -> list[str]:
    """What a chat through a pipe shows, without the times."""
    whom = ("--data", broker.data, "--as", name)
    done = parley("chat", broker.url, *whom, *arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, "")
    return [re.sub(r"^\d\d:\d\d ", "", line) for line in done.stdout.splitlines()]


def test_what_one_sends_the_other_reads(broker: Broker) -> None:
    sent = chat(broker, "ann", "--with", "bob", stdin="hello\nwörld 😀\n")
    read = chat(broker, "bob", "--with", "ann", stdin="")

    assert [line for line in sent if line[0] != "*"] == ["ann: hello", "ann: wörld 😀"]
    assert [line for line in read if line[0] != "*"] == ["ann: hello", "ann: wörld 😀"]


def test_a_room_is_made_by_the_first_and_found_by_the_next(broker: Broker) -> None:
    first = chat(broker, "cleo", "--room", "the lobby", stdin="anybody here?\n")
    second = chat(broker, "dave", "--room", "the lobby", stdin="/who\nme\n/rooms\n")

    assert "cleo: anybody here?" in first
    assert "cleo: anybody here?" in second
    assert "dave: me" in second
    assert "* cleo  offline" in second
    assert any(line.startswith("* g/") and "the lobby" in line for line in second)


def test_help_and_mistakes_are_answered(broker: Broker) -> None:
    lines = chat(broker, "eve", stdin="/help\n/nonsense\nto nobody\n")

    assert any("/join ROOM" in line for line in lines)
    assert "* no such command: /nonsense; /help lists them" in lines
    assert "* no conversation is open: /join ROOM or /with NAME" in lines


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--token", "nonsense"], "token"),
        (["--as", "x", "--data", "/nowhere/at/all"], "does not exist"),
        ([], "who are you"),
    ],
)
def test_who_cannot_chat_is_told_why_in_a_line(
    broker: Broker, tmp_path: Path, arguments: list[str], said: str
) -> None:
    done = parley("chat", broker.url, *arguments)

    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_broker_at_the_address_is_told_in_a_line(tmp_path: Path) -> None:
    done = parley("chat", "ws://127.0.0.1:1/ws", "--token", "x")

    assert done.returncode == 1
    assert "Traceback" not in done.stderr


WHERE_IS_THE_CURSOR = "\x1b[6n"


PRESS_AGAIN_S = 2.0


class Typist:
    """Somebody at a terminal."""

    def __init__(self, *arguments: str) -> None:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        self.screen = ""
        self._lines = 0
        self._terminal = ours
        self._readable = select.poll()
        self._readable.register(ours, select.POLLIN)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "broker.cli", "chat", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            close_fds=True,
            env=clean_environment() | {"TERM": "xterm"},
        )
        os.close(theirs)

    def types(self, text: str) -> None:
        if WHERE_IS_THE_CURSOR in self.screen:
            self._lines += text.count("\r")
        os.write(self._terminal, text.encode())

    def sees(self, text: str, times: int = 1) -> bool:
        """Wait until it is on the screen."""
        deadline = time.monotonic() + TIMEOUT_S
        while self.screen.count(text) < times and time.monotonic() < deadline:
            if self._readable.poll(100):
                try:
                    self._read()
                except OSError:
                    break
        return self.screen.count(text) >= times

    def _read(self) -> None:
        shown = os.read(self._terminal, 65536).decode(errors="replace")
        self.screen += shown
        if WHERE_IS_THE_CURSOR in shown:
            self.types("\x1b[1;1R")

    def leaves(self, key: str = "\x04") -> int:
        """Ctrl-D at the prompt, or another key; the exit code."""
        # Each prompt of the chat asks for it as it begins; between two of them a key is nobody's,
        # and on a busy machine that may last: then one presses it again, as a person would.
        assert self.sees(WHERE_IS_THE_CURSOR, times=self._lines + 1)
        deadline = time.monotonic() + TIMEOUT_S
        while self.process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError):  # it may leave at this moment
                self.types(key)
            self._reads_on(PRESS_AGAIN_S)
        return self.process.wait(timeout=PRESS_AGAIN_S)

    def _reads_on(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            if self._readable.poll(100):
                try:
                    self._read()
                except OSError:
                    return


def test_at_a_terminal_one_sees_others_come_type_and_speak(broker: Broker) -> None:
    arguments = (broker.url, "--data", broker.data, "--room", "pty")
    ann = Typist(*arguments, "--as", "ann")
    try:
        assert ann.sees("pty (g/")
        bob = Typist(*arguments, "--as", "bob")
        try:
            assert ann.sees("bob joined")
            assert ann.sees("2 online")
            bob.types("hello from b")
            assert ann.sees("bob is typing")
            bob.types("ob\r")
            assert ann.sees("hello from bob")
            bob.types("/with ann\r")
            assert bob.sees("ann (d/")
            bob.types("psst\r")
            assert ann.sees("[bob] ")
            assert bob.leaves() == 0
        finally:
            bob.process.kill()
        assert ann.sees("bob went offline")
        assert ann.leaves() == 0
    finally:
        ann.process.kill()


def test_at_a_terminal_one_may_log_in_by_name_and_password(broker: Broker) -> None:
    added = parley(
        "user", "add", "--data", broker.data, "--password-stdin", "zoe", stdin="secret words"
    )
    assert added.returncode == 0
    zoe = Typist(broker.url, "--room", "by password")
    try:
        assert zoe.sees("Name")
        zoe.types("zoe\r")
        assert zoe.sees("Password")
        zoe.types("secret words\r")
        assert zoe.sees("by password (g/")
        assert "secret words" not in zoe.screen
        assert zoe.leaves() == 0
    finally:
        zoe.process.kill()


def test_control_c_ends_a_chat_as_well(broker: Broker) -> None:
    ann = Typist(broker.url, "--data", broker.data, "--as", "ann", "--room", "interrupted")
    try:
        assert ann.sees("interrupted (g/")
        assert ann.leaves("\x03") == 0
    finally:
        ann.process.kill()


class Shown:
    """A screen that keeps what is shown; its user watches until `enough` lines are there."""

    interactive = False

    def __init__(self, enough: int) -> None:
        self.plain: list[str] = []
        self._enough = enough
        self._done = trio.Event()

    def shown(self) -> AbstractContextManager[object]:
        return nullcontext()

    def show(self, line: Text) -> None:
        self.plain.append(line.plain)
        if len(self.plain) == self._enough:
            self._done.set()

    def status(self, text: str) -> None:
        pass

    async def lines(self, typed: Callable[[], None]) -> AsyncIterator[str]:
        await self._done.wait()
        return
        yield


class Told:
    """A client that is told of its connection."""

    user = 5

    def __init__(self, *events: ConnectionChanged) -> None:
        self._events = events

    async def __aiter__(self) -> AsyncIterator[ConnectionChanged]:
        for event in self._events:
            yield event
        await trio.sleep_forever()


async def test_a_long_outage_is_told_once_not_at_every_attempt() -> None:
    attempts = [ConnectionChanged(up=False, reason=f"attempt {n}") for n in range(9)]
    screen = Shown(enough=2)

    await Chat(cast(Client, Told(*attempts, ConnectionChanged(up=True))), screen).run()

    assert screen.plain == ["* connection lost (attempt 0)", "* connected again"]


def test_over_tls_the_authority_must_be_known(tmp_path: Path) -> None:
    authority = trustme.CA()
    pem = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    data = tmp_path / "data"

    with running_broker(data, "--tls-cert", str(pem), "--tls-key", str(pem)) as broker:
        arguments = ("chat", broker.url, "--data", data, "--as", "ann", "--with", "bob")
        known = parley(*arguments, "--ca", tmp_path / "ca.pem", stdin="hello\n")
        unknown = parley(*arguments, stdin="hello\n")

    assert broker.url.startswith("wss://")
    assert "ann: hello" in known.stdout
    assert (known.returncode, known.stderr) == (0, "")
    assert unknown.returncode == 1
    assert "certificate" in unknown.stderr
    assert len(unknown.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("kind", "body", "more", "line"),
    [
        ("text", "hi", {}, "ann: hi"),
        ("text", "hi", {"edited_ts": 7}, "ann: hi (edited)"),
        ("text", None, {"recalled": True}, "* ann took this message back"),
        ("file", {"name": "a.pdf"}, {}, "ann: [file a.pdf]"),
        ("custom", {"x": 1}, {}, "ann: [custom]"),
        ("edit", "ho", {"ref": 3}, "* ann changed 3 to: ho"),
        ("recall", None, {"ref": 3}, "* ann took 3 back"),
        ("pin", None, {"ref": 3}, "* ann pinned 3"),
        ("unpin", None, {"ref": 3}, "* ann unpinned 3"),
        ("react", {"emoji": "👍", "on": True}, {"ref": 3}, "* ann reacted to 3 with 👍"),
        ("react", {"emoji": "👍", "on": False}, {"ref": 3}, "* ann no longer reacts to 3 with 👍"),
        ("system", {"event": "joined", "users": [5], "by": 5}, {}, "* ann joined"),
        ("system", {"event": "joined", "users": [9, 8], "by": 5}, {}, "* ann joined: bob, user 8"),
        ("of the future", 1, {}, "* ann (of the future)"),
    ],
)
def test_every_kind_of_entry_has_its_line(
    kind: str, body: object, more: dict[str, int], line: str
) -> None:
    entry = Message("g/1", 4, 5, 0, kind, body, **more)  # type: ignore[arg-type]

    assert line_of(entry, NAMES, own=9).plain[6:] == line


@given(st.text())
def test_nothing_that_others_write_can_steer_the_terminal(text: str) -> None:
    entry = Message("g/1", 4, 5, 0, "text", text)

    shown = line_of(entry, NAMES, own=9).plain

    assert not set(shown) & set(map(chr, [*range(32), *range(127, 160), 0x202E, 0x2066, 0x2028]))


def test_joined_emoji_stay_joined() -> None:
    family = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}"

    assert clean(family) == family
