"""How each system under test is spoken to: opening, conversations, publishes, and what to count.

One class a kind of server, all with the same four methods, so that the traffic loop is the same for
all. What a publisher counts as the answer to its message is the broker's acknowledgement where
there is one, and its own message coming back where there is none (NATS).
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from bench import opening, wire
from bench.jobs import OPENING_AT_ONCE, Job
from bench.opening import Opened, Script
from bench.wire import Publish

INVITE_MAX_USERS = 200
"""The protocol's bound on a list in one command."""


class Place:
    """Which conversation a connection belongs to, and which of its members it is."""

    __slots__ = ("group", "index", "place")

    def __init__(self, job: Job, index: int) -> None:
        self.index = index
        self.group, self.place = divmod(index, job.members)


class Peer(Protocol):
    """A kind of server."""

    message_mark: bytes
    """Occurs once in each delivery."""
    same_stream: bool
    """Members who do not publish get the same bytes, so that counting bytes is enough."""
    parses: bool
    """Deliveries carry `seq`, so that a member's stream can be decoded and checked."""
    stamped: bool
    """Deliveries carry the publisher's stamp."""

    def open(self, job: Job) -> list[Opened]:
        """One connection for each member of each group, in order."""

    def converse(self, job: Job, opened: Sequence[Opened]) -> list[Publish | None]:
        """Make the conversations; for each connection how it publishes, if it does."""

    def ack_mark(self, index: int) -> bytes:
        """Occurs once in what a publisher gets when its message is done."""


def peer(job: Job) -> Peer:
    """The peer for the system of a job."""
    match job.system:
        case "parley" | "naive":
            return Parley()
        case "nats":
            return Nats()
        case "floor":
            return Floor()


def _open(job: Job, make: Callable[[Place, socket.socket], Script[Opened]]) -> list[Opened]:
    """Open all, and put them into the order of their places."""
    places = [Place(job, index) for index in range(job.connections)]
    order: dict[int, int] = {}

    def scripts() -> Iterator[Callable[[socket.socket], Script[Opened]]]:
        for place in places:

            def begin(sock: socket.socket, place: Place = place) -> Script[Opened]:
                order[sock.fileno()] = place.index
                return make(place, sock)

            yield begin

    results = opening.run_all(job.host, job.port, scripts(), at_once=OPENING_AT_ONCE)
    return sorted(results, key=lambda opened: order[opened.sock.fileno()])


class Parley:
    """The broker under test, and the naive server, which speaks the same frames."""

    message_mark = wire.MSG_MARK
    same_stream = True
    parses = True
    stamped = True

    def open(self, job: Job) -> list[Opened]:
        tokens = job.tokens
        return _open(
            job, lambda place, sock: opening.parley(sock, tokens[place.index], job.transport)
        )

    def converse(self, job: Job, opened: Sequence[Opened]) -> list[Publish | None]:
        publishes: list[Publish | None] = [None] * len(opened)
        for group in range(job.groups):
            first = group * job.members
            members = opened[first : first + job.members]
            pair = job.shape == "pairs"
            conv = "" if pair else self._create(job, members)
            for place in range(job.publishers):
                to = {"to": {"user": members[1 - place].user}} if pair else {"conv": conv}
                index = first + place
                publishes[index] = wire.parley_publish(to, index, job.transport, job.keys_from)
        return publishes

    def _create(self, job: Job, members: Sequence[Opened]) -> str:
        """A group, filled page by page; its conversation."""
        others = [member.user for member in members[1:]]
        pages = [
            others[at : at + INVITE_MAX_USERS] for at in range(0, len(others), INVITE_MAX_USERS)
        ]
        ids = itertools.count(2)

        def script() -> Script[str]:
            create = {"t": "group.create", "title": "bench", "kind": "group", "members": pages[0]}
            reply = yield from opening.ask(sock, {**create, "id": next(ids)}, job.transport)
            conv = str(reply["conv"])
            for page in pages[1:]:
                invite = {"t": "group.invite", "id": next(ids), "conv": conv, "users": page}
                yield from opening.ask(sock, invite, job.transport)
            return conv

        sock = members[0].sock
        return opening.converse(sock, script())

    def ack_mark(self, index: int) -> bytes:
        return wire.OK_MARK


class Nats:
    """nats-server: a subject a conversation. It keeps nothing and acknowledges nothing."""

    message_mark = b"MSG "
    same_stream = False
    parses = False
    stamped = True

    def open(self, job: Job) -> list[Opened]:
        idle = job.shape == "idle"
        return _open(
            job, lambda place, sock: opening.nats(sock, b"" if idle else b"s%d" % place.group)
        )

    def converse(self, job: Job, opened: Sequence[Opened]) -> list[Publish | None]:
        places = (Place(job, index) for index in range(len(opened)))
        return [
            wire.nats_publish(b"s%d" % at.group, at.index) if at.place < job.publishers else None
            for at in places
        ]

    def ack_mark(self, index: int) -> bytes:
        return wire.tag(index)


class Floor:
    """A bare loop of sends: no parsing, no users, no order, the same bytes for everyone."""

    message_mark = wire.MSG_MARK
    same_stream = True
    parses = False
    stamped = False

    def open(self, job: Job) -> list[Opened]:
        size = len(_floor_publish(0)(0, wire.stamp(0)))
        return _open(job, lambda place, sock: opening.floor(sock, place.group, size))

    def converse(self, job: Job, opened: Sequence[Opened]) -> list[Publish | None]:
        places = (Place(job, index) for index in range(len(opened)))
        return [_floor_publish(at.index) if at.place < job.publishers else None for at in places]

    def ack_mark(self, index: int) -> bytes:
        return wire.OK_MARK


def _floor_publish(index: int) -> Publish:
    return wire.parley_publish({"conv": "g/1"}, index, "ws")
