"""One connection to one Redis: commands out, answers in, and the seam where its errors become ours.

Blocking, for one thread. RESP is hiredis's, the socket ours: a pipelined command costs a fifth of
what it does through the usual client. No call waits longer than the constants here say, so that a
server that hangs is noticed. It knows no command but those that open a connection.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

import hiredis

from storage.errors import Unavailable

if TYPE_CHECKING:
    from storage.redis.settings import Address, Login, RedisSettings

CONNECT_MAX_S = 2.0
"""For opening a connection, TLS included; then it counts as away."""

ANSWER_MAX_S = 3.0
"""A server that neither takes nor says anything for so long hangs: the connection is given up."""

READ_BYTES = 256 * 1024
"""What is read from a socket at once."""

Command = tuple[bytes | str, ...]
Answer = Any
"""What hiredis makes of an answer: bytes, int, None, list, or a `ReplyError` that is not raised."""


class Link:
    """An open connection, logged in. Raises `Unavailable` from the first call on."""

    def __init__(self, settings: RedisSettings, address: Address, *, sentinel: bool = False):
        self.address = address
        self._name = f"Redis at {address[0]}:{address[1]}"
        self._reader = hiredis.Reader()
        self._buffer = bytearray(READ_BYTES)
        self._socket = self._connect(settings, address)
        login = settings.sentinel_login if sentinel else settings.login
        try:
            self._log_in(login, 0 if sentinel else settings.db)
        except BaseException:
            self.close()
            raise

    def exchange(self, commands: Sequence[Command]) -> list[Answer]:
        """Do all these with one write; their answers in order.

        Raises `Unavailable` when any answer is missing: `applied` is None, and the link is closed.
        """
        self.send(commands)
        return self.answers(len(commands))

    def send(self, commands: Sequence[Command]) -> None:
        """The first half of `exchange`."""
        packed = b"".join([hiredis.pack_command(command) for command in commands])  # type: ignore[arg-type]
        self._socket.settimeout(ANSWER_MAX_S)
        try:
            self._socket.sendall(packed)
        except OSError as error:
            raise self._lost(error) from error

    def answers(self, count: int) -> list[Answer]:
        """The second half: the answers to `count` commands that were sent."""
        answers: list[Answer] = []
        while len(answers) < count:
            got = self.read(ANSWER_MAX_S)
            if not got:
                raise self._lost(f"no answer for {ANSWER_MAX_S:g} s")
            answers += got
        return answers

    def read(self, wait_s: float) -> list[Answer]:
        """All that has come, at least one answer; none where nothing whole comes for so long."""
        reader = self._reader
        quiet_after = monotonic() + wait_s
        answers: list[Answer] = []
        while not answers:
            if not self._fill(quiet_after):
                break
            while (answer := reader.gets()) is not False:
                answers.append(answer)
        return answers

    def close(self) -> None:
        """Close it, whatever state it is in."""
        self._socket.close()

    def interrupt(self) -> None:
        """From another thread: whoever reads gets `Unavailable` at once."""
        with suppress(OSError):
            # Not the method of a TLS socket, which would first change what its reader stands on.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _fill(self, quiet_after: float) -> bool:
        """Whether something came in time."""
        self._socket.settimeout(max(0.001, quiet_after - monotonic()))
        try:
            got = self._socket.recv_into(self._buffer)
            if not got:
                raise self._lost("it hung up")
            self._reader.feed(self._buffer, 0, got)  # type: ignore[arg-type]
        except TimeoutError:
            return False
        except (OSError, hiredis.HiredisError) as error:
            raise self._lost(error) from error
        return True

    def _connect(self, settings: RedisSettings, address: Address) -> socket.socket:
        try:
            opened = socket.create_connection(address, CONNECT_MAX_S)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if settings.tls is None:
                return opened
            try:
                return settings.tls.wrap_socket(opened, server_hostname=address[0])
            except BaseException:
                opened.close()
                raise
        except (OSError, UnicodeError) as error:  # the second: no name of a host
            raise Unavailable(f"{self._name}: {error}") from error

    def _log_in(self, login: Login, db: int) -> None:
        commands: list[Command] = []
        if login.password:
            name = (login.username,) if login.username else ()
            commands.append(("AUTH", *name, login.password))
        if db:
            commands.append(("SELECT", str(db)))
        commands.append(("PING",))
        try:
            answers = self.exchange(commands)
        except Unavailable as error:
            raise Unavailable(str(error), applied=False) from error
        for answer in answers:
            if isinstance(answer, hiredis.ReplyError):
                raise Unavailable(f"{self._name}: {answer}")

    def _lost(self, error: object) -> Unavailable:
        self.close()
        return Unavailable(f"{self._name}: {error}", applied=None)
