"""The floor: the same bytes, sent to the same number of plain sockets, in a bare loop.

One `send` per message and member, nothing else: no parsing, no users, no log, no batching. What a
server that does not batch can reach at most. `python -m bench.baselines.floor --port N`.
"""

from __future__ import annotations

import argparse
import gc
import select
import socket
from collections import defaultdict

import msgpack  # type: ignore[import-untyped]

from bench import machine, wire
from bench.opening import FLOOR_HELLO, FLOOR_READY

BACKLOG = 1024
READ_BYTES = 65_536
EVENTS_MAX = 512

MESSAGE = {
    "t": "msg",
    "conv": "g/1",
    "seq": 100_000,
    "from": 1_000,
    "ts": 1_763_700_000_123,
    "kind": "text",
    "body": "x" * wire.BODY_BYTES,
}
OK = {"t": "ok", "id": 100_000, "conv": "g/1", "seq": 100_000, "ts": 1_763_700_000_123}


def server_frame(fields: dict[str, object]) -> bytes:
    """An unmasked WebSocket message as a server sends it."""
    payload: bytes = msgpack.packb(fields)
    size = len(payload)
    head = bytes([0x82, size]) if size < 126 else b"\x82\x7e" + size.to_bytes(2, "big")
    return head + payload


class Member:
    """A socket, the others of its group, and what could not be written yet."""

    __slots__ = ("group", "partial", "publish_bytes", "send", "sock", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.send = sock.send
        self.group: list[Member] = []
        self.publish_bytes = 0
        self.partial = 0
        self.unsent = b""


class Floor:
    """The loop, and who is in which group."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.poll = select.epoll()
        self.members: dict[int, Member] = {}
        self.groups: defaultdict[int, list[Member]] = defaultdict(list)
        self.message = server_frame(MESSAGE)
        self.reply = server_frame(OK) + self.message

    def run(self) -> None:
        """Until the process is ended."""
        self.poll.register(self.listener, select.EPOLLIN)
        while True:
            for fd, event in self.poll.poll(-1, EVENTS_MAX):
                if fd == self.listener.fileno():
                    self.accept()
                elif member := self.members.get(fd):
                    if event & select.EPOLLOUT:
                        self.go_on(member)
                    if event & ~select.EPOLLOUT:
                        self.read(member)

    def accept(self) -> None:
        """Take one more socket."""
        sock, _ = self.listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.members[sock.fileno()] = Member(sock)
        self.poll.register(sock, select.EPOLLIN)

    def read(self, member: Member) -> None:
        """Whole publishes go out at once; the first bytes say which group it is."""
        try:
            data = member.sock.recv(READ_BYTES)
        except ConnectionResetError:
            data = b""
        if not data:
            self.leave(member)
        elif not member.publish_bytes:
            group, member.publish_bytes = FLOOR_HELLO.unpack(data)
            member.group = self.groups[group]
            member.group.append(member)
            member.send(FLOOR_READY)
        else:
            count, member.partial = divmod(member.partial + len(data), member.publish_bytes)
            for _ in range(count):
                self.publish(member)

    def publish(self, sender: Member) -> None:
        """The bare loop."""
        message = self.message
        for member in sender.group:
            data = self.reply if member is sender else message
            if member.unsent:
                member.unsent += data
                continue
            try:
                written = member.send(data)
            except BlockingIOError:
                written = 0
            except OSError:
                continue
            if written != len(data):
                member.unsent = data[written:]
                self.poll.modify(member.sock, select.EPOLLIN | select.EPOLLOUT)

    def go_on(self, member: Member) -> None:
        """Write to a socket that was full."""
        try:
            member.unsent = member.unsent[member.send(member.unsent) :]
        except BlockingIOError:
            return
        except OSError:
            member.unsent = b""
        if not member.unsent:
            self.poll.modify(member.sock, select.EPOLLIN)

    def leave(self, member: Member) -> None:
        """Forget a socket."""
        if member in member.group:
            member.group.remove(member)
        del self.members[member.sock.fileno()]
        member.sock.close()


def main() -> None:
    """Listen and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    machine.pin(machine.SERVER_CPU)
    listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
    gc.freeze()
    Floor(listener).run()


if __name__ == "__main__":
    main()
