"""A user's session: how fast one may send, and how many connections one may have."""

from __future__ import annotations

from msgspec import structs

from actors.node import Node, Options
from actors.session import Session
from storage.memory import MemoryStore


class Hands:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def session(hands: Hands, **options: float) -> Session:
    node = Node(MemoryStore(), options=structs.replace(Options(), **options))
    node.now = hands
    return Session(node, 1)


async def test_a_burst_then_a_steady_rate() -> None:
    hands = Hands()
    mine = session(hands, sends_per_second=10.0, sends_burst=3)

    assert [mine.wait_ms() for _ in range(3)] == [0, 0, 0]
    wait = mine.wait_ms()
    assert 90 <= wait <= 101
    hands.time += wait / 1000
    assert mine.wait_ms() == 0
    assert mine.wait_ms() > 0


async def test_a_rest_fills_the_burst_and_no_more() -> None:
    hands = Hands()
    mine = session(hands, sends_per_second=10.0, sends_burst=3)
    hands.time += 3_600

    assert [mine.wait_ms() == 0 for _ in range(5)] == [True, True, True, False, False]


async def test_without_a_rate_nobody_waits() -> None:
    mine = session(Hands(), sends_per_second=0.0)
    assert not any(mine.wait_ms() for _ in range(10_000))


async def test_statistics_are_frozen() -> None:
    mine = session(Hands())
    assert mine.statistics().user == 1
    assert mine.statistics().connections == 0
