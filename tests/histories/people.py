"""What people do with their clients: talk, change what they said, come and go, lose their network.

Decisions come from a seed. Nothing is judged here.
"""

from __future__ import annotations

from random import Random

import trio
from msgspec import Struct

from tests.histories.client import Client
from tests.histories.membership import begins_for
from tests.histories.record import Map

BURST_MAX = 4
"""Messages that are sent without waiting for each other's answers."""


class Habits(Struct, frozen=True, kw_only=True):
    """Shares of all acts, but for `think_s`: the mean time between them."""

    think_s: float = 1.5
    talks_direct: float = 0.35
    talks_in_group: float = 0.35
    amends: float = 0.08
    reads: float = 0.08
    looks: float = 0.03
    comes_and_goes: float = 0.05
    rules: float = 0.03
    types: float = 0.02
    vanishes: float = 0.02
    is_deaf: float = 0.02
    away_s: float = 4.0
    """How long one vanishes or is deaf, on average."""


class Person:
    """Drives one client. `groups` are open groups that anybody may join, `others` other users."""

    def __init__(
        self, client: Client, rng: Random, habits: Habits, *, others: list[int], groups: list[str]
    ) -> None:
        self.client = client
        self._rng = rng
        self._habits = habits
        self._others = others
        self._groups = groups
        self._count = 0

    async def run(self) -> None:
        """Act, for ever."""
        names, shares = zip(*_acts(self._habits), strict=True)
        while True:
            await trio.sleep(self._rng.expovariate(1 / self._habits.think_s))
            act = self._rng.choices(names, shares)[0]
            await getattr(self, f"_{act}")()

    # What is kept in a log

    async def _talks_direct(self) -> None:
        other = self._rng.choice(self._others)
        self._talk(_direct(self.client.user, other), {"to": {"user": other}})

    async def _talks_in_group(self) -> None:
        conv = self._rng.choice(self._groups)
        if self._inside(conv):
            self._talk(conv, {"conv": conv})
        else:
            await self.client.say_once("group.join", {"conv": conv}, conv=conv)

    def _talk(self, conv: str, where: Map) -> None:
        for _ in range(self._rng.randint(1, BURST_MAX)):
            key = self._key()
            body = f"{key} " + "x" * self._rng.randrange(60)
            self.client.intend("send", conv, key, {**where, "kind": "text", "body": body})

    async def _amends(self) -> None:
        mine = [
            intent
            for intent in self.client.record.intents
            if intent.user == self.client.user and intent.t == "send" and intent.seq
        ]
        if not mine:
            return
        target = self._rng.choice(mine[-20:])
        key = self._key()
        fields: Map = {"conv": target.conv, "ref": target.seq}
        t = self._rng.choice(["edit", "edit", "react", "recall"])
        if t == "edit":
            fields["body"] = f"{key} edited"
        elif t == "react":
            fields["emoji"] = "+1"
        self.client.intend(t, target.conv, key, fields)

    async def _comes_and_goes(self) -> None:
        conv = self._rng.choice(self._groups)
        t = "group.leave" if self._inside(conv) else "group.join"
        await self.client.say_once(t, {"conv": conv}, conv=conv)

    async def _rules(self) -> None:
        """Put somebody out, or fetch them in: only who made the group may do the former."""
        conv = self._groups[-1]
        other = self._rng.choice(self._others)
        if self._rng.random() < 0.5:
            await self.client.say_once("group.kick", {"conv": conv, "user": other}, conv=conv)
        else:
            await self.client.say_once("group.invite", {"conv": conv, "users": [other]}, conv=conv)

    def _inside(self, conv: str) -> bool:
        """As far as this client knows: by the last entry of its own coming or going."""
        user = self.client.user
        for seen in reversed(self.client.saw.logs.get(conv, ())):
            if seen.kind == "system" and user in seen.body["users"]:
                return begins_for({"kind": seen.kind, "body": seen.body}, user)
        return False

    # What is not

    async def _reads(self) -> None:
        if self.client.saw.cursors:
            conv = self._rng.choice(sorted(self.client.saw.cursors))
            fields = {"conv": conv, "seq": self.client.saw.cursors[conv]}
            await self.client.say_once("read", fields, conv=conv)

    async def _looks(self) -> None:
        if self.client.saw.cursors:
            conv = self._rng.choice(sorted(self.client.saw.cursors))
            await self.client.look({"conv": conv, "limit": 5}, conv=conv)

    async def _types(self) -> None:
        conv = _direct(self.client.user, self._rng.choice(self._others))
        await self.client.say_once("typing", {"conv": conv}, conv=conv)

    async def _vanishes(self) -> None:
        if self.client.offline_until != float("inf"):
            self.client.offline_until = trio.current_time() + self._away_s()

    async def _is_deaf(self) -> None:
        self.client.deaf_until = trio.current_time() + self._away_s()

    def _away_s(self) -> float:
        return self._rng.expovariate(1 / self._habits.away_s)

    def _key(self) -> str:
        self._count += 1
        return f"{self.client.name}.{self._count}"


def _direct(user: int, other: int) -> str:
    return f"d/{min(user, other)}/{max(user, other)}"


def _acts(habits: Habits) -> list[tuple[str, float]]:
    return [
        (name, getattr(habits, name))
        for name in Habits.__struct_fields__
        if not name.endswith("_s")
    ]
