"""Any order of writing and sending, against a socket that takes what it likes, and what comes out.

In order, nothing twice; missing are only ephemeral events, and entries that a `behind` stands for.
"""

from __future__ import annotations

import socket
from typing import Any

import msgpack
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.images import Image
from actors.node import Node, Options
from actors.outbox import Outbox, size_of
from actors.wires import TCP_MSGPACK
from broker.wire.errors import ByeCode
from storage.memory import MemoryStore
from tests.helpers.peer import framed

SOFT, HIGH, HARD = 1_000, 3_000, 6_000


class Log:
    """A conversation, as far as an outbox knows one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.head = 0
        self.live = True

    def unsubscribe(self, outbox: Outbox) -> None:
        assert self.live, "told twice that it is behind"
        self.live = False


class Desk(Outbox):
    """An outbox whose socket takes as many bytes as `room` has."""

    def __init__(self, node: Node) -> None:
        super().__init__(node, TCP_MSGPACK, self.take)
        self.room = 0
        self.taken = bytearray()
        self.wants_writable = False
        self.said: ByeCode | None = None
        self.is_drained = False

    def take(self, data: bytes) -> int:
        if not self.room:
            raise BlockingIOError
        count = min(self.room, len(data))
        self.room -= count
        self.taken += data[:count]
        return count

    def rearm(self) -> None:
        self.wants_writable = self.stalled

    def broken(self) -> None:
        raise AssertionError("the socket is well")

    def drained(self) -> None:
        self.is_drained = True

    def bye(self, code: ByeCode, after_ms: int | None = None) -> None:
        self.said = code
        self.drop_queue()
        self.closing = True
        self.push(framed({"t": "bye"}))

    def frames(self) -> list[dict[str, Any]]:
        unpacked = []
        rest = bytes(self.taken)
        while rest:
            size = int.from_bytes(rest[:4], "big")
            unpacked.append(msgpack.unpackb(rest[4 : 4 + size]))
            rest = rest[4 + size :]
        return unpacked


class Story:
    """Runs the steps and keeps what was written, to be compared with what came out."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.desk = Desk(node)
        self.logs = [Log("g/1"), Log("g/2"), Log("g/3")]
        self.replies: list[int] = []
        self.written: list[tuple[str, int]] = []
        self.count = 0

    def step(self, what: str, which: int, size: int) -> None:
        desk = self.desk
        if desk.closing and what not in ("room", "flush", "writable"):
            return
        getattr(self, what)(which, size)
        if desk.stalled:
            assert type(desk.pending) is list
            assert desk.queued_bytes == sum(map(size_of, desk.pending))
            assert desk in self.node.stalled
            assert desk.queued_bytes <= HARD
        else:
            assert desk.queued_bytes == 0
            assert desk not in self.node.stalled
        assert desk.wants_writable == desk.stalled

    def _frame(self, t: str, size: int, **fields: Any) -> bytes:
        self.count += 1
        self.written.append((t, self.count))
        return framed({"t": t, "n": self.count, "pad": "x" * size, **fields})

    def entry(self, which: int, size: int) -> None:
        log = self.logs[which]
        if log.live:
            log.head += 1
            data = self._frame("msg", size, conv=log.name, seq=log.head)
            self.desk.push(Image(data, log))

    def reply(self, which: int, size: int) -> None:
        data = self._frame("ok", size)
        self.replies.append(self.count)
        self.desk.push(data)

    def typing(self, which: int, size: int) -> None:
        self.desk.push_ephemeral(self._frame("typing", size))

    def pull(self, which: int, size: int) -> None:
        """The client has caught up, and is live again."""
        self.logs[which].live = True

    def room(self, which: int, size: int) -> None:
        self.desk.room += size

    def flush(self, which: int, size: int) -> None:
        for outbox in self.node.flusher.dirty:
            outbox.flush()
        self.node.flusher.dirty = []

    def writable(self, which: int, size: int) -> None:
        self.desk.on_writable()

    def check(self) -> None:
        """After all is drained."""
        frames = self.desk.frames()
        numbers = [frame["n"] for frame in frames if "n" in frame]
        assert numbers == sorted(set(numbers)), "out of order or twice"
        if self.desk.said is None:
            assert [f["n"] for f in frames if f["t"] == "ok"] == self.replies
        else:
            assert frames[-1] == {"t": "bye"}
            assert self.desk.is_drained
        for log in self.logs:
            self._check_log(log, frames)

    def _check_log(self, log: Log, frames: list[dict[str, Any]]) -> None:
        known = 0
        for frame in frames:
            if frame.get("conv") != log.name:
                continue
            if frame["t"] == "behind":
                assert frame["head"] >= known
                known = frame["head"]
            else:
                assert frame["seq"] == known + 1, "a hole that no `behind` stands for"
                known = frame["seq"]
        if self.desk.said is None:
            assert known == log.head


STEPS = st.tuples(
    st.sampled_from(
        ["entry"] * 4 + ["reply", "typing", "pull", "room", "room", "flush", "flush", "writable"]
    ),
    st.integers(0, 2),
    st.sampled_from([0, 1, 3, 40, 300, 1_500]),
)


@given(st.sampled_from([0, 900, HIGH - 200, HIGH - 50, HARD - 100]), st.lists(STEPS, max_size=60))
@settings(max_examples=400)
def test_what_comes_out_is_what_was_written(before: int, steps: list[tuple[str, int, int]]) -> None:
    async def tell() -> None:
        story = await stalled_desk(before)
        for what, which, size in steps:
            story.step(what, which, size)
        story.step("room", 0, 10_000_000)
        story.step("flush", 0, 0)
        story.step("writable", 0, 0)
        assert story.desk.pending is None
        story.check()

    trio.run(tell)


async def stalled_desk(*replies: int) -> Story:
    """One that has these many bytes of replies to send, and cannot."""
    options = Options(soft_bytes=SOFT, high_bytes=HIGH, hard_bytes=HARD)
    story = Story(Node(MemoryStore(), options=options))
    for size in replies:
        story.reply(0, size)
        story.flush(0, 0)
    return story


async def test_several_conversations_that_fall_behind_at_once_are_told_once_each() -> None:
    story = await stalled_desk(2_900)
    for which in (0, 1, 2):
        story.step("entry", which, 20)
    story.step("reply", 0, 200)
    assert [log.live for log in story.logs] == [False, False, False]
    assert story.node.counters.behind == 3


async def test_replies_alone_above_the_hard_mark_end_the_connection() -> None:
    story = await stalled_desk(2_000, 2_000, 1_900)
    assert story.desk.said is None
    story.reply(0, 500)
    assert story.desk.said is ByeCode.SLOW_CONSUMER
    assert story.node.counters.slow_cut == 1
    assert story.desk.queued_bytes < HARD // 2


async def test_ephemeral_events_go_first() -> None:
    story = await stalled_desk(900)
    story.step("typing", 0, 10)
    assert story.node.counters.ephemeral_dropped == 0
    story.step("reply", 0, 100)
    story.step("typing", 0, 10)
    assert story.node.counters.ephemeral_dropped == 1


async def test_a_dead_socket_is_reported_once_and_holds_nothing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        desk = Desk(Node(MemoryStore()))
        ended: list[bool] = []
        desk.send = ours.send
        desk.broken = lambda: ended.append(True)  # type: ignore[method-assign]
        theirs.close()
        desk.push(b"too late")
        desk.flush()
        assert ended == [True]
        assert desk.pending is None


async def test_replies_above_the_high_mark_cost_no_look_at_all_that_waits() -> None:
    """Else one client that reads nothing could occupy the broker with pings."""
    story = await stalled_desk(2_900)
    looks: list[int] = []
    degrade = story.desk._degrade

    def counted() -> None:
        looks.append(story.desk.queued_bytes)
        degrade()

    story.desk._degrade = counted  # type: ignore[method-assign]
    for _ in range(30):
        story.step("reply", 0, 10)
    assert story.desk.queued_bytes > HIGH
    assert len(looks) == 1
    story.step("entry", 0, 10)
    assert not story.logs[0].live
    for _ in range(200):
        story.step("reply", 0, 10)
    assert story.desk.said is ByeCode.SLOW_CONSUMER
