"""One address is held back without the others noticing, and nobody for longer than needed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.commands.rates import ADDRESSES_MAX, RateLimit, SharedLimit
from storage.errors import Unavailable
from storage.memory import MemoryEphemeral


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_zero_is_no_limit() -> None:
    limit = RateLimit(0, Clock())
    assert not any(limit.wait_ms("a") for _ in range(1_000))


def test_each_address_has_its_own_allowance() -> None:
    limit = RateLimit(2, Clock())
    assert [limit.wait_ms("a") for _ in range(3)] == [0, 0, 30_000]
    assert limit.wait_ms("b") == 0


@given(st.integers(1, 1_000), st.lists(st.floats(0, 120), max_size=50))
def test_who_waits_as_told_is_let_through(per_minute: int, pauses: list[float]) -> None:
    clock = Clock()
    limit = RateLimit(per_minute, clock)
    for pause in pauses:
        clock.now += pause
        wait_ms = limit.wait_ms("a")
        if wait_ms:
            clock.now += wait_ms / 1000
            assert limit.wait_ms("a") == 0


@given(st.integers(1, 60), st.lists(st.floats(0, 5), min_size=1, max_size=100))
def test_nobody_gets_more_than_the_rate_and_one_burst(per_minute: int, pauses: list[float]) -> None:
    clock = Clock()
    limit = RateLimit(per_minute, clock)
    let_through = 0
    for pause in pauses:
        clock.now += pause
        let_through += limit.wait_ms("a") == 0
    assert let_through <= per_minute + clock.now * per_minute / 60 + 1e-3


def test_memory_is_bounded_and_the_longest_quiet_is_forgotten() -> None:
    limit = RateLimit(1, Clock())
    assert limit.wait_ms("first") == 0
    for number in range(ADDRESSES_MAX):
        limit.wait_ms(str(number))
    assert len(limit) == ADDRESSES_MAX
    assert limit.wait_ms("first") == 0


class Comes(MemoryEphemeral):
    """What nodes share, which comes and goes; `asked` counts the questions."""

    away = False
    asked = 0

    async def wait_ms(self, what: str, who: str, *, per_minute: int) -> int:
        self.asked += 1
        if self.away:
            raise Unavailable("Redis is away", applied=False)
        return await super().wait_ms(what, who, per_minute=per_minute)


async def test_nodes_that_share_a_limit_have_it_once_and_each_thing_has_its_own() -> None:
    clock = Clock()
    shared = Comes(clock)
    here, there = [SharedLimit("logins", 2, clock, shared) for _ in range(2)]
    other = SharedLimit("registrations", 2, clock, shared)
    assert [await limit.wait_ms("a") for limit in (here, there, here)] == [0, 0, 30_000]
    assert await there.wait_ms("b") == await other.wait_ms("a") == 0
    clock.now += 30
    assert [await limit.wait_ms("a") for limit in (there, here)] == [0, 30_000]


async def test_while_nodes_cannot_ask_each_counts_for_itself_and_then_all_do_again() -> None:
    clock = Clock()
    shared = Comes(clock)
    here, there = [SharedLimit("logins", 2, clock, shared) for _ in range(2)]
    assert await here.wait_ms("a") == 0
    shared.away = True
    for limit in (here, there):
        assert [await limit.wait_ms("a") for _ in range(3)] == [0, 0, 30_000]
    shared.away = False
    assert [await limit.wait_ms("a") for limit in (there, here)] == [0, 30_000]


async def test_no_limit_asks_nobody_and_one_node_has_nobody_to_ask() -> None:
    clock = Clock()
    shared = Comes(clock)
    free = SharedLimit("logins", 0, clock, shared)
    assert not any([await free.wait_ms("a") for _ in range(100)])
    assert shared.asked == 0
    alone = SharedLimit("logins", 1, clock)
    assert [await alone.wait_ms("a") for _ in range(2)] == [0, 60_000]
