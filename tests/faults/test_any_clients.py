"""Any clients doing anything: one order for all, without holes or doubles; promises are kept.

Clients of a broker in memory send, stop reading, leave, come back and send again what they have
sent before, while the store fails now and then. At the end each has exactly the log.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgpack
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.sweeper import idle
from storage.errors import Unavailable
from storage.records import decode_entry
from tests.actors.world import World, world
from tests.helpers.peer import Map, framed

CONVS = ["d/1/2", "d/1/3", "d/2/3"]
USERS = [1, 2, 3]
MARKS = {"soft_bytes": 1_000, "high_bytes": 3_000, "hard_bytes": 40_000}
BIG = 1_500
LOOKS_MAX = 400
BUFFER_BYTES = 1
"""As little as the system gives."""
FRAMES_AT_ONCE = 100


class Client:
    """One user's device with a cursor in each conversation; drops what it has, pulls what it lacks.

    It never waits: it sends what there is room for and reads what is there. `entries` is what an
    application would have seen, in the order of seeing it.
    """

    def __init__(self, made: World, user: int) -> None:
        self.user = user
        self.convs = [conv for conv in CONVS if str(user) in conv.split("/")[1:]]
        self.entries: dict[str, list[Any]] = {conv: [] for conv in self.convs}
        self.promised: dict[str, tuple[str, int]] = {}
        self.sent: dict[str, tuple[str, str]] = {}
        self._made = made
        self._socket: socket.socket | None = None
        self._last_id = 0
        self._forget()

    def _forget(self) -> None:
        """What belongs to one connection."""
        self._unsent = self._received = b""
        self._asked: dict[int, str] = {}
        self._pulling: dict[int, tuple[str, int]] = {}
        self._behind: set[str] = set()

    @property
    def satisfied(self) -> bool:
        return not (self._asked or self._pulling)

    async def come(self) -> None:
        """Connect; pull what was missed; send again what was not answered."""
        if self._socket is not None:
            return
        connection, self._socket = self._made.pair(buffer_bytes=BUFFER_BYTES)
        await self._made.until(lambda: connection in self._made.node.connections)
        connection.opened(self.user, f"session {self.user}", "")
        for conv in self.convs:
            self._pull(conv)
        for key in self.sent:
            if key not in self.promised:
                self.send_again(key)

    def leave(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._forget()

    def send(self, conv: str, size: int) -> None:
        key = f"{self.user}.{len(self.sent)}"
        self.sent[key] = conv, key + "x" * size
        self.send_again(key)

    def send_again(self, key: str) -> None:
        if self._socket is not None:
            conv, body = self.sent[key]
            self._asked[self._command("send", conv=conv, key=key, kind="text", body=body)] = key

    def _pull(self, conv: str) -> None:
        cursor = len(self.entries[conv])
        self._pulling[self._command("history", conv=conv, after=cursor, limit=5)] = conv, cursor

    def _command(self, t: str, **fields: Any) -> int:
        self._last_id += 1
        self._unsent += framed({"t": t, "id": self._last_id, **fields})
        self._write()
        return self._last_id

    def _write(self) -> None:
        if self._socket is not None and self._unsent:
            with suppress(BlockingIOError):
                self._unsent = self._unsent[self._socket.send(self._unsent) :]

    def read(self, count: int) -> None:
        """Take so many frames, as far as they are there."""
        self._write()
        while count and (frame := self._frame()) is not None:
            count -= 1
            self._on(frame)

    def _frame(self) -> Map | None:
        """The next whole frame; receives no more than it needs to, as who is slow."""
        need = 4
        while True:
            if len(self._received) >= 4:
                need = 4 + int.from_bytes(self._received[:4], "big")
            if len(self._received) >= max(need, 5):
                frame: Map = msgpack.unpackb(self._received[4:need])
                self._received = self._received[need:]
                return frame
            if self._socket is None:
                return None
            try:
                data = self._socket.recv(need - len(self._received))
            except BlockingIOError:
                return None
            if not data:
                self.leave()
                return None
            self._received += data

    def _on(self, frame: Map) -> None:
        if frame["t"] == "msg":
            assert frame["conv"] not in self._behind, "live before it has caught up"
            self._see(frame)
        elif frame["t"] == "behind":
            self._behind.add(frame["conv"])
            self._pull(frame["conv"])
        elif frame.get("id") in self._pulling:
            self._on_page(*self._pulling.pop(frame["id"]), frame)
        elif frame.get("id") in self._asked:
            self._on_answer(self._asked.pop(frame["id"]), frame)
        else:
            assert (frame["t"], frame["code"]) == ("bye", "slow_consumer"), frame

    def _on_page(self, conv: str, after: int, page: Map) -> None:
        if page["t"] == "error":
            assert page["code"] == "unavailable", page
            self._pull(conv)
            return
        for entry in page["entries"]:
            self._see(entry)
        if after + len(page["entries"]) >= page["head"]:
            self._behind.discard(conv)
        if len(self.entries[conv]) < page["head"] or conv in self._behind:
            self._pull(conv)

    def _on_answer(self, key: str, answer: Map) -> None:
        if answer["t"] == "error":
            assert answer["code"] == "unavailable", answer
            self.send_again(key)
            return
        place = answer["conv"], answer["seq"]
        assert self.promised.setdefault(key, place) == place, "one key, two entries"

    def _see(self, entry: Map) -> None:
        conv, seq, body = entry["conv"], entry["seq"], entry["body"]
        seen = self.entries[conv]
        if seq <= len(seen):
            assert seen[seq - 1] == body, "two orders"
        elif seq == len(seen) + 1:
            seen.append(body)
        else:
            # What comes live before the pages that precede it is in one of them.
            assert conv in [conv for conv, _ in self._pulling.values()], "a hole"


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["send"] * 4
            + ["burst"] * 3
            + ["read"] * 5
            + ["come", "leave", "again", "work", "work", "fail", "doubt", "idle"]
        ),
        st.integers(0, 2),
        st.integers(0, 7),
    ),
    min_size=5,
    max_size=80,
)


async def step(made: World, clients: list[Client], what: str, which: int, number: int) -> None:
    client = clients[which]
    match what:
        case "send":
            conv = client.convs[number % 2]
            client.send(conv, BIG if number > 3 else 0)
        case "burst":
            for _ in range(number + 3):
                client.send(client.convs[number % 2], BIG)
        case "again" if client.sent:
            client.send_again(list(client.sent)[number % len(client.sent)])
        case "read":
            client.read(number * 4)
        case "come":
            await client.come()
        case "leave":
            client.leave()
        case "work":
            await trio.testing.wait_all_tasks_blocked()
        case "fail" | "doubt":
            applied = False if what == "fail" else None
            made.store.commits.faults.append(Unavailable("gone", applied=applied))
        case "idle":
            for conversation in list(made.node.registry.conversations.values()):
                if idle(conversation, made.node.now() + 1):
                    conversation.end()


async def finish(made: World, clients: list[Client]) -> None:
    """Everybody comes back; then one more message each proves that all are live."""
    for client in clients:
        client.leave()
    await read_until(made, clients, lambda: all(client.satisfied for client in clients))
    for client in clients:
        for conv in client.convs:
            client.send(conv, 0)
    await read_until(made, clients, lambda: all(client.satisfied for client in clients))


async def read_until(made: World, clients: list[Client], done: Callable[[], bool]) -> None:
    """All read whatever comes, and come back when they are cut; bounded."""
    for _ in range(LOOKS_MAX):
        for client in clients:
            await client.come()
            client.read(FRAMES_AT_ONCE)
        if done():
            return
        await trio.testing.wait_all_tasks_blocked()
    raise AssertionError("it did not come to that")


async def check(made: World, clients: list[Client]) -> None:
    logs = {
        conv: [decode_entry(p).body for p in await made.store.read(conv, after=0, limit=10_000)]
        for conv in CONVS
    }
    assert all(len(set(log)) == len(log) for log in logs.values()), "doubled"

    def all_have_all() -> bool:
        return all(
            client.entries[conv] == logs[conv] for client in clients for conv in client.convs
        )

    await read_until(made, clients, all_have_all)
    for client in clients:
        for key, (conv, body) in client.sent.items():
            promised_in, seq = client.promised[key]
            assert (promised_in, logs[conv][seq - 1]) == (conv, body)


@given(STEPS)
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
def test_everybody_ends_with_the_same_log(steps: list[tuple[str, int, int]]) -> None:
    async def tell() -> None:
        async with world(users=3, **MARKS) as made:
            clients = [Client(made, user) for user in USERS]
            for client in clients:
                await client.come()
            for what, which, number in steps:
                await step(made, clients, what, which, number)
            await finish(made, clients)
            await check(made, clients)
            for client in clients:
                client.leave()

    trio.run(tell)
