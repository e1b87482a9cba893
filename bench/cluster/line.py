"""A connection of the bench itself, for a few commands; nothing that is counted by the second."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from bench import opening, wire
from bench.servers import HOST
from bench.wire import ProtocolError

AT_ONCE = 50
"""Commands in flight while many are answered."""
READ_BYTES = 1 << 16


class Line:
    """One connection of the bench itself, for one command after the other."""

    def __init__(self, port: int, token: str) -> None:
        self.sock = opening.connect(HOST, port)
        self.user = opening.converse(self.sock, opening.parley(self.sock, token, "tcp")).user
        self._ids = itertools.count(2)
        self._rest = b""

    def ask(self, t: str, **fields: Any) -> dict[str, Any]:
        """A command and its reply. Raises `ProtocolError`."""
        asked = {"t": t, "id": next(self._ids), **fields}
        return opening.converse(self.sock, opening.ask(self.sock, asked, "tcp"))

    def ask_all(self, commands: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The replies of many commands, in their order, with some of them in flight at once."""
        replies = []
        for start in range(0, len(commands), AT_ONCE):
            some = {next(self._ids): command for command in commands[start : start + AT_ONCE]}
            self.sock.setblocking(True)
            self.sock.sendall(
                b"".join(wire.command({**c, "id": i}, "tcp") for i, c in some.items())
            )
            answered: dict[int, dict[str, Any]] = {}
            for reply in self._replies():
                if reply.get("id") in some:
                    answered[reply["id"]] = reply
                if reply["t"] == "error":
                    raise ProtocolError(str(reply))
                if len(answered) == len(some):
                    break
            replies += [answered[number] for number in some]
            self.sock.setblocking(False)
        return replies

    def _replies(self) -> Iterator[dict[str, Any]]:
        data = b""
        while True:
            if not (chunk := self.sock.recv(READ_BYTES)):
                raise ProtocolError("the server hung up")
            payloads, data = wire.split(data + chunk, "tcp")
            yield from map(wire.decode, payloads)

    def send(self, t: str, **fields: Any) -> None:
        """A command whose reply will come with `take`."""
        self.sock.send(wire.command({"t": t, "id": next(self._ids), **fields}, "tcp"))

    def take(self) -> list[dict[str, Any]]:
        """All whole frames that are there, once the socket is readable."""
        if not (chunk := self.sock.recv(READ_BYTES)):
            raise ProtocolError("the server hung up")
        payloads, self._rest = wire.split(self._rest + chunk, "tcp")
        return [wire.decode(payload) for payload in payloads]

    def close(self) -> None:
        """Be gone."""
        opening.abandon(self.sock)
