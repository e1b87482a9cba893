"""Watchers of a user are told of its last change, whatever comes between a look and its answer."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import trio
from trio.testing import MockClock

from broker.commands import people
from broker.wire import commands as c
from storage.errors import Unavailable
from storage.records import User
from tests.actors.world import TABLE, World, world
from tests.helpers.peer import Peer


class SlowLook:
    """The next look at users is answered when a test lets it be."""

    def __init__(self, made: World) -> None:
        self.asked, self.gate = trio.Event(), trio.Event()
        self.fault: Unavailable | None = None
        self._users = made.store.users
        made.store.users = self._look  # type: ignore[method-assign]
        self._store = made.store

    async def _look(self, ids: Iterable[int]) -> dict[int, User]:
        self._store.users = self._users  # type: ignore[method-assign]
        found = await self._users(ids)
        self.asked.set()
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return found


async def watching(made: World) -> tuple[Peer, Peer]:
    """Ann, who watches Bob, and Bob, who can say how he is."""
    made.node.open_table = {**TABLE, c.ProfileSet: people.profile_set}
    (_, ann), (_, bob) = await made.join(1), await made.join(2)
    await ann.ok("presence.watch", users=[2])
    return ann, bob


@pytest.mark.parametrize("fault", [None, Unavailable("away")])
async def test_a_change_while_another_is_looked_up_is_told_too(
    autojump_clock: MockClock, fault: Unavailable | None
) -> None:
    async with world() as made:
        ann, bob = await watching(made)
        await bob.ok("profile.set", status="a")
        look = SlowLook(made)
        await look.asked.wait()
        await bob.ok("profile.set", show_online="nobody")
        look.fault = fault
        look.gate.set()
        await trio.sleep(5)
        await ann.ok("ping")
        last = [event["users"] for event in ann.events if event["t"] == "presence"][-1]
        assert last == [{"user": 2, "online": False}]


async def test_a_change_that_could_not_be_looked_up_is_told_later(
    autojump_clock: MockClock,
) -> None:
    async with world() as made:
        ann, bob = await watching(made)
        await bob.ok("profile.set", status="a")
        look = SlowLook(made)
        look.fault = Unavailable("away")
        look.gate.set()
        with trio.fail_after(5):
            (state,) = (await ann.event("presence"))["users"]
        assert (state["user"], state["status"]) == (2, "a")
