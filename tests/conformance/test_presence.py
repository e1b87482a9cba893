"""What presence must do: users are online where a living node says so, and nowhere else."""

from __future__ import annotations

import trio

from storage.shared import PresenceStore
from tests.conformance.shared_backends import Passing

LONG_MS = 60_000
"""A time that no test lasts."""


async def test_who_has_a_session_on_a_living_node_is_online(presence: PresenceStore) -> None:
    assert await presence.online([1, 2]) == set()
    assert not await presence.keep_alive("a", LONG_MS)
    await presence.update("a", here=[1, 2], gone=[])
    assert await presence.online([1, 2, 3]) == {1, 2}
    assert await presence.online([2]) == {2}
    assert await presence.online([]) == set()
    await presence.update("a", here=[3], gone=[1])
    assert await presence.online([1, 2, 3]) == {2, 3}
    assert await presence.keep_alive("a", LONG_MS)


async def test_a_user_on_two_nodes_is_online_until_they_leave_the_last(
    presence: PresenceStore,
) -> None:
    for node in ("a", "b"):
        await presence.keep_alive(node, LONG_MS)
        await presence.update(node, here=[1], gone=[])
    await presence.update("a", here=[], gone=[1])
    assert await presence.online([1]) == {1}
    await presence.update("b", here=[], gone=[1, 2])
    assert await presence.online([1]) == set()


async def test_entries_count_while_their_node_is_kept_alive(
    presence: PresenceStore, passing: Passing
) -> None:
    await presence.update("a", here=[1], gone=[])
    assert await presence.online([1]) == set(), "nobody said that the node lives"
    for node in ("a", "b"):
        assert not await presence.keep_alive(node, LONG_MS)
        await presence.update(node, here=[1, 2] if node == "a" else [2, 3], gone=[])
    assert await presence.online([1, 2, 3]) == {1, 2, 3}

    assert await presence.keep_alive("a", 40)
    await passing(100)
    assert await presence.online([1, 2, 3]) == {2, 3}


async def test_a_node_that_comes_back_late_is_told_to_write_all_again(
    presence: PresenceStore, passing: Passing
) -> None:
    await presence.keep_alive("a", 40)
    await presence.update("a", here=[1, 2], gone=[])
    await passing(100)
    assert await presence.online([1, 2]) == set()  # who looks may clean up

    assert not await presence.keep_alive("a", LONG_MS)
    await presence.update("a", here=[2], gone=[])
    assert 2 in await presence.online([2])
    assert await presence.keep_alive("a", LONG_MS)
    assert 2 in await presence.online([2])


async def test_a_node_that_left_counts_no_more(presence: PresenceStore) -> None:
    for node in ("a", "b"):
        await presence.keep_alive(node, LONG_MS)
    await presence.update("a", here=[1, 2], gone=[])
    await presence.update("b", here=[2], gone=[])
    await presence.forget("a")
    assert await presence.online([1, 2]) == {2}
    await presence.forget("a")
    assert not await presence.keep_alive("a", LONG_MS)


async def test_five_thousand_users_come_and_go_at_once(presence: PresenceStore) -> None:
    everyone = set(range(1, 5001))
    await presence.keep_alive("a", LONG_MS)
    with trio.fail_after(30):
        await presence.update("a", here=everyone, gone=[])
        assert await presence.online(everyone) == everyone
        await presence.update("a", here=[], gone=[user for user in everyone if user % 2])
        assert await presence.online(everyone) == {user for user in everyone if user % 2 == 0}
