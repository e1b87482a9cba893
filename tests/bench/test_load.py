"""What the load client claims, against servers that cheat: a check must be able to fail."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import msgspec
import pytest

from bench import wire
from bench.baselines.floor import MESSAGE, OK, server_frame
from bench.jobs import Job
from bench.load import Crowd
from bench.opening import Opened
from bench.peers import Parley
from bench.wire import Publish

JOB = Job(
    system="parley",
    shape="groups",
    port=1,
    server_pid=1,
    members=6,
    publishers=1,
    in_flight=3,
    drain_s=0.5,
)


class Group(Parley):
    """A broker that the test plays itself: it needs nobody to make its group."""

    def converse(self, job: Job, opened: Sequence[Opened]) -> list[Publish | None]:
        publish = wire.parley_publish({"conv": "g/1"}, 0, "ws")
        return [publish, *[None] * (len(opened) - 1)]


class Stage:
    """A crowd of six on socket pairs, and the server's ends: a publisher, two samples, three."""

    def __init__(self, stack: ExitStack, job: Job) -> None:
        pairs = [socket.socketpair() for _ in range(job.members)]
        for sock in (sock for pair in pairs for sock in pair):
            stack.enter_context(sock)
        for ours, _ in pairs:
            ours.setblocking(False)
        self.ends = [theirs for _, theirs in pairs]
        self.crowd = Crowd(job, Group(), [Opened(ours, 1) for ours, _ in pairs])
        stack.callback(self.crowd.loop.close)
        self.crowd.loop.start()

    def deliver(self, seqs: Sequence[int], members: Sequence[int], *, oks: int) -> None:
        """Entries to members, and answers to the publisher."""
        entries = b"".join(server_frame({**MESSAGE, "seq": seq}) for seq in seqs)
        for member in members:
            self.ends[member].sendall(entries)
        self.ends[0].sendall(server_frame(OK) * oks)

    def problems(self) -> list[str]:
        """What the crowd finds wrong in the end; nobody publishes any more."""
        self.crowd.loop.publishing = False
        return self.crowd.drain_and_check().problems


@pytest.fixture
def stage() -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(stack, JOB)


EVERYBODY = range(6)


def test_a_server_that_serves_everybody_in_order_passes(stage: Stage) -> None:
    stage.deliver([1, 2, 3], EVERYBODY, oks=3)
    stage.crowd.loop.publishing = False
    checks = stage.crowd.drain_and_check()
    assert checks.problems == []
    assert (checks.publishes, checks.deliveries, checks.parsed_members) == (3, 18, 2)


def test_a_message_that_one_member_never_got_is_missed(stage: Stage) -> None:
    stage.deliver([1, 2, 3], range(5), oks=3)
    stage.deliver([1, 2], [5], oks=0)
    problems = stage.problems()
    assert "17 deliveries of 18" in problems
    assert any(problem.startswith("1 members got other than") for problem in problems)


def test_loss_for_one_and_a_double_for_another_do_not_cancel_out(stage: Stage) -> None:
    stage.deliver([1, 2, 3], range(4), oks=3)
    stage.deliver([1, 2], [4], oks=0)
    stage.deliver([1, 2, 3, 3], [5], oks=0)
    assert any(problem.startswith("2 members got other than") for problem in stage.problems())


def test_an_order_that_is_wrong_is_seen(stage: Stage) -> None:
    stage.deliver([1, 3, 2], EVERYBODY, oks=3)
    assert "seq 3 after 1" in stage.problems()


def test_an_answer_that_never_comes_is_missed(stage: Stage) -> None:
    stage.deliver([1, 2, 3], EVERYBODY, oks=2)
    assert "1 of 3 messages were never answered" in stage.problems()


def test_what_came_before_the_start_does_not_count() -> None:
    with ExitStack() as stack:
        stage = Stage(stack, JOB)
        stage.crowd.loop.publishing = False
        for end in stage.ends:
            end.sendall(server_frame({"t": "conv", "conv": "g/1", "change": "created"}))
        stage.crowd.loop.settle(0.01, 5.0)
        stage.crowd.reset()
        stage.deliver([1, 2, 3], EVERYBODY, oks=3)
        assert stage.problems() == []


def test_members_of_many_groups_are_counted_by_message() -> None:
    with ExitStack() as stack:
        stage = Stage(stack, msgspec.structs.replace(JOB, groups=2))
        assert not stage.crowd.by_byte
        stage.deliver([1, 2, 3], EVERYBODY, oks=3)
        assert stage.problems() == []


def test_counts_are_compared_member_by_member() -> None:
    with ExitStack() as stack:
        stage = Stage(stack, msgspec.structs.replace(JOB, groups=2))
        stage.deliver([1, 2, 3], range(4), oks=3)
        stage.deliver([1, 2], [4], oks=0)
        stage.deliver([1, 2, 3, 3], [5], oks=0)
        assert stage.problems() == ["2 members got more or fewer messages than were sent"]
