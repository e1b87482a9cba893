"""What a message costs between `recv` and `send`: no kernel, no store, the least of many turns.

    python -m bench.micro

Real connections and conversations on sockets that do nothing, over a store that keeps nothing of
what is committed. For comparing two versions on a noisy machine; it says nothing of throughput.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass

import msgpack  # type: ignore[import-untyped]
import trio

from actors.connection import Connection
from actors.node import Node
from actors.wires import WS_MSGPACK
from broker.commands import messages
from broker.wire import commands
from storage.memory import MemoryStore
from storage.records import Append, Commit, Entry, Group, Member, User, encode_entry

USERS = 1_000
TURNS = 60
BODY = "x" * 128


@dataclass(frozen=True)
class Shape:
    """`groups` of equal size (0: pairs); in each, `publishers` send `burst` messages a turn."""

    name: str
    groups: int
    publishers: int
    burst: int


SHAPES = (
    Shape("P1", 0, 1, 1),
    Shape("P2", 0, 2, 8),
    Shape("F1", 1, 5, 1),
    Shape("F3", 50, 2, 4),
)


class Idle:
    """A socket that has one thing to say and takes everything."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.says = b""

    def fileno(self) -> int:
        return self._number

    def recv(self, size: int) -> bytes:
        return self.says

    def send(self, data: bytes) -> int:
        return len(data)


class Forgetful(MemoryStore):
    """Keeps what it is given before the measurement only."""

    async def commit(self, commit: Commit) -> None:
        if commit.groups:
            await super().commit(commit)


def frame(message: dict[str, object]) -> bytes:
    """A masked WebSocket frame; the mask is zero."""
    payload: bytes = msgpack.packb(message)
    return b"\x82\xfe" + len(payload).to_bytes(2, "big") + bytes(4) + payload


async def filled(shape: Shape) -> Forgetful:
    """A store with the users and groups."""
    store = Forgetful()
    await store.create_users([User(id=0, name=f"u{n}") for n in range(USERS)], [None] * USERS)
    size = USERS // shape.groups if shape.groups else 0
    for number in range(1, shape.groups + 1):
        first = (number - 1) * size + 1
        entry = Entry(seq=1, sender=first, ts=1, kind="system", body={"event": "created"})
        conv = f"g/{number}"
        group = Group(
            id=number,
            title="bench",
            kind="group",
            visibility="private",
            join="invite",
            history="all",
            created=1,
        )
        members = [Member(conv, user, "member", 1) for user in range(first, first + size)]
        append = Append(conv, 1, [encode_entry(entry)], 1)
        await store.commit(Commit(appends=[append], groups=[group], members=members))
    return store


def senders(shape: Shape) -> list[tuple[int, dict[str, object]]]:
    """Who sends where: (index of the connection, fields of the command)."""
    if shape.groups:
        size = USERS // shape.groups
        return [
            (number * size + n, {"conv": f"g/{number + 1}"})
            for number in range(shape.groups)
            for n in range(shape.publishers)
        ]
    half = USERS // 2
    one = [(n, {"to": {"user": n + half + 1}}) for n in range(half)]
    other = [(n + half, {"to": {"user": n + 1}}) for n in range(half)]
    return [*one, *(other if shape.publishers == 2 else [])]  # type: ignore[list-item]


async def measure(shape: Shape) -> dict[str, float]:
    """Microseconds a message: reading, the turn, the flush, and all."""
    node = Node(await filled(shape))
    node.opening_table = {}
    node.open_table = {commands.Send: messages.send}
    least: dict[str, float] = {}
    async with trio.open_nursery() as nursery:
        node.tasks = nursery
        nursery.start_soon(node.turn.run_loader)
        sockets = [Idle(number) for number in range(USERS)]
        connections = []
        for user, idle in enumerate(sockets, 1):
            connection = Connection(node, idle, wire=WS_MSGPACK, tls=None, peer="")  # type: ignore[arg-type]
            connection.opened(user, "", "")
            connections.append(connection)
        places = senders(shape)
        conversations = shape.groups or USERS // 2
        for turn in range(TURNS):
            for index, where in places:
                sockets[index].says = b"".join(
                    frame(
                        {
                            "t": "send",
                            "id": n,
                            "key": f"{turn}-{n}-key",
                            "kind": "text",
                            "body": BODY,
                            **where,
                        }
                    )
                    for n in range(shape.burst)
                )
            await one_turn(node, [connections[index] for index, _ in places], conversations, least)
        nursery.cancel_scope.cancel()
    count = len(places) * shape.burst
    return {what: seconds * 1e6 / count for what, seconds in least.items()}


async def one_turn(
    node: Node, publishers: list[Connection], conversations: int, least: dict[str, float]
) -> None:
    gc.collect()
    gc.disable()
    start = time.perf_counter()
    for connection in publishers:
        connection.on_readable()
    read = time.perf_counter()
    while node.turn.statistics().ready < conversations:  # noqa: ASYNC110
        await trio.sleep(0.001)  # the first time, they are loaded
    begun = time.perf_counter()
    await node.turn.run_once()
    decided = time.perf_counter()
    await node.flusher.flush_turn()
    flushed = time.perf_counter()
    gc.enable()
    parts = {"read": read - start, "turn": decided - begun, "flush": flushed - decided}
    for what, seconds in (*parts.items(), ("all", sum(parts.values()))):
        least[what] = min(least.get(what, seconds), seconds)


def main() -> None:
    print("µs a message, the least of", TURNS, "turns")
    for shape in SHAPES:
        figures = trio.run(measure, shape)
        print(shape.name, "  ".join(f"{what} {us:.2f}" for what, us in figures.items()))


if __name__ == "__main__":
    main()
