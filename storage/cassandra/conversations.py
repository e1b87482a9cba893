"""What surrounds the logs: loading, members, memberships, groups, a user's settings. Reads, all of
it, but for settings.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import trio

from storage.cassandra.bridge import Bridge
from storage.cassandra.changes import LISTED_SHARDS
from storage.cassandra.connection import READ, WRITE
from storage.cassandra.keys import KEYS_PER_QUERY, asking, by_keys
from storage.cassandra.known import Knowledge
from storage.cassandra.log import SHARDS, HeadRow, place
from storage.cassandra.pages import Pages, payloads
from storage.cassandra.statements import GROUP_FIELDS, Statements
from storage.cassandra.taking import Taking
from storage.cassandra.versions import Versions, epoch_of, version_of
from storage.interfaces import name_key
from storage.names import direct_members, direct_users, group_id
from storage.records import Group, Head, Loaded, Mark, Member, Membership, Settings

LISTED_PAGE_ROWS = 250
"""Of each part of the list of public groups that is looked at in one round."""
LISTED_LOOKED_MAX = 20_000
"""Public groups that one search looks at; then it returns what it has found."""
OPEN_PAGE_ROWS = 1_000
"""Conversations left open in one slot that are read at once; the rest follow."""


class Conversations:
    """Reads of `Timeline`, and `put_settings`."""

    def __init__(
        self,
        bridge: Bridge,
        statements: Statements,
        known: Knowledge,
        versions: Versions,
        taking: Taking,
        pages: Pages,
    ) -> None:
        self._bridge = bridge
        self._bind = statements.bind
        self._known = known
        self._versions = versions
        self._taking = taking
        self._pages = pages

    async def load(
        self, convs: Sequence[str], tail: int, epochs: Mapping[str, int]
    ) -> dict[str, Loaded]:
        """See `Timeline.load`."""
        convs = list(dict.fromkeys(convs))
        if epochs:
            walks = await self._taking.take(convs, epochs)
        else:
            walks = await self._taking.look(convs)
        heads = [Head(walk.seq, walk.ts) for walk in walks]
        lows = [max(1, head.seq - tail + 1) for head in heads]
        pages = [
            self._pages.asking(conv, low, head.seq) if tail > 0 else []
            for conv, low, head in zip(convs, lows, heads, strict=True)
        ]
        members = [self._bind("all_members", conv) for conv in convs]
        marks = [self._bind("all_marks", conv) for conv in convs]
        asked = [*members, *marks, *(statement for page in pages for statement in page)]
        answers = await self._bridge.all(asked, READ)
        groups = await self._groups({id_ for conv in convs if (id_ := group_id(conv))})
        users = await self._existing({user for conv in convs for user in direct_users(conv)})
        count = len(convs)
        rows = iter(answers[2 * count :])
        return {
            conv: Loaded(
                conv=conv,
                head=head,
                tail=list(payloads([next(rows) for _ in page], low, HeadRow(head.seq)).values()),
                members=direct_members(conv) or _members(conv, answers[number]),
                marks=[Mark(conv, user, r, d) for user, r, d, _ in answers[count + number]],
                group=groups.get(group_id(conv) or 0),
                missing_users=[user for user in direct_users(conv) if user not in users],
                doubt=self._taking.in_doubt(conv),
            )
            for number, (conv, head, low, page) in enumerate(
                zip(convs, heads, lows, pages, strict=True)
            )
        }

    async def left_open(self, slots: Collection[int]) -> list[str]:
        """See `Timeline.left_open`."""
        found: list[str] = []
        left = dict.fromkeys(slots, "")
        while left:
            asked = [
                self._bind("open_heads", slot % SHARDS, slot, after, OPEN_PAGE_ROWS)
                for slot, after in left.items()
            ]
            answers = await self._bridge.all(asked, READ)
            more = {}
            for slot, rows in zip(left, answers, strict=True):
                found += [conv for (conv,) in rows]
                if len(rows) == OPEN_PAGE_ROWS:
                    more[slot] = rows[-1][0]
            left = more
        await trio.lowlevel.checkpoint()
        return found

    async def heads(self, convs: Iterable[str]) -> dict[str, Head]:
        """See `Timeline.heads`."""
        found, asked = self._asking_heads(convs)
        return await self._exact(found, await self._bridge.all(asked, READ))

    def _asking_heads(self, convs: Iterable[str]) -> tuple[dict[str, Head], list[Any]]:
        """The heads that are known, an empty one for every other, and what to ask for these."""
        shards: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
        found: dict[str, Head] = {}
        for conv in dict.fromkeys(convs):
            found[conv] = Head()
            if (known := self._known.alone(conv)) is not None:
                found[conv] = Head(known.seq, known.ts)
                continue
            shard, slot, _ = place(conv)
            shards[shard].append((slot, conv))
        return found, [
            self._bind("heads", shard, keys[start : start + KEYS_PER_QUERY])
            for shard, keys in shards.items()
            for start in range(0, len(keys), KEYS_PER_QUERY)
        ]

    async def _exact(self, found: dict[str, Head], answers: Iterable[Any]) -> dict[str, Head]:
        """The heads with what was answered, exact where there is one process alone."""
        inexact = []
        for rows in answers:
            for conv, seq, ts, version, is_open in rows:
                found[conv] = Head(seq or 0, ts or 0, bool(is_open))
                self._taking.log.cover(conv, seq or 0)
                if is_open and epoch_of(version) == 0:
                    inexact.append(conv)
        if inexact:
            walks = await self._taking.look(inexact)
            for conv, walk in zip(inexact, walks, strict=True):
                found[conv] = Head(walk.seq, walk.ts)
        return found

    async def memberships(
        self, user: int, past: Mapping[str, int] | None = None
    ) -> list[Membership]:
        """See `Timeline.memberships`."""
        rows = await self._bridge.one(self._bind("memberships", user), READ)
        rows = [row for row in rows if row[3] is False]
        known, asked = self._asking_heads(row[0] for row in rows)
        # All groups beside the heads; or only afterwards, and then only those that are told of.
        ids = [id_ for row in rows if (id_ := group_id(row[0]))] if past is None else []
        groups_asked = asking(self._bind, "groups", ids)
        answers = await self._bridge.all([*asked, *groups_asked], READ)
        groups = _group_rows(row for rows_ in answers[len(asked) :] for row in rows_)
        heads = await self._exact(known, answers[: len(asked)])
        if past is not None:
            rows = [row for row in rows if _moved(heads[row[0]], past.get(row[0], 0))]
            groups = await self._groups({id_ for row in rows if (id_ := group_id(row[0]))})
        found = []
        for conv, role, since, _, read, delivered, *settings in rows:
            group = groups.get(group_id(conv) or 0)
            found.append(
                Membership(
                    conv=conv,
                    role=role,
                    since=since,
                    head=heads[conv],
                    read=read or 0,
                    delivered=delivered or 0,
                    settings=_settings(user, conv, settings),
                    title=group.title if group else "",
                    avatar=group.avatar if group else "",
                    history=group.history if group else "all",
                )
            )
        return found

    async def members(self, conv: str, *, after: int, limit: int) -> list[Member]:
        """See `Timeline.members`."""
        direct = direct_members(conv)
        if direct or limit <= 0:
            await trio.lowlevel.checkpoint()
            return [member for member in direct if member.user > after][: max(0, limit)]
        rows = await self._bridge.one(self._bind("some_members", conv, after, limit), READ)
        return [Member(conv, *row) for row in rows]

    async def groups(self, ids: Iterable[int]) -> dict[int, tuple[Group, int]]:
        """See `Timeline.groups`."""
        groups = await self._groups(set(ids))
        asked = [self._bind("count_members", f"g/{id_}") for id_ in groups]
        counts = await self._bridge.all(asked, READ)
        return {
            id_: (group, rows[0][0])
            for (id_, group), rows in zip(groups.items(), counts, strict=True)
        }

    async def find_groups(self, query: str, *, after: int, limit: int) -> list[tuple[Group, int]]:
        """See `Timeline.find_groups`. Looks at `LISTED_LOOKED_MAX` groups at most."""
        key = name_key(query)
        ids: list[int] = []
        looked = 0
        while len(ids) < limit and looked < LISTED_LOOKED_MAX:
            asked = [
                self._bind("listed_groups", shard, after, LISTED_PAGE_ROWS)
                for shard in range(LISTED_SHARDS)
            ]
            answers = await self._bridge.all(asked, READ)
            # All ids up to the end of the shortest full page have been seen.
            ends = [rows[-1][0] for rows in answers if len(rows) == LISTED_PAGE_ROWS]
            end = min(ends, default=None)
            rows = sorted(row for rows in answers for row in rows if end is None or row[0] <= end)
            ids += [id_ for id_, title_key, listed in rows if listed and key in title_key]
            looked += len(rows)
            if end is None:
                break
            after = end
        found = await self.groups(ids[: max(0, limit)])
        return [found[id_] for id_ in sorted(found)]

    async def settings(self, user: int, conv: str) -> Settings | None:
        """See `Timeline.settings`."""
        rows = await self._bridge.one(self._bind("settings", user, conv), READ)
        if not rows:
            return None
        *row, version = rows[0]
        # So that who changes what they have read has the last word, whatever their clock says.
        self._versions.saw(version or 0)
        return _settings(user, conv, row)

    async def put_settings(self, settings: Settings, epoch: int) -> None:
        """See `Timeline.put_settings`."""
        s = settings
        version = version_of(epoch, self._versions.next())
        values = (version, s.muted, s.pinned, s.hidden, s.nickname, s.draft, s.user, s.conv)
        await self._bridge.one(self._bind("put_settings", *values), WRITE)

    async def _groups(self, ids: Collection[int]) -> dict[int, Group]:
        return _group_rows(await by_keys(self._bridge, self._bind, "groups", ids))

    async def _existing(self, ids: Collection[int]) -> set[int]:
        rows = await by_keys(self._bridge, self._bind, "users", ids)
        return {row[0] for row in rows if row[1] is not None}


def _moved(head: Head, cursor: int) -> bool:
    return head.open or head.seq > cursor


def _group_rows(rows: Iterable[tuple[Any, ...]]) -> dict[int, Group]:
    names = ("id", *GROUP_FIELDS)
    return {row[0]: Group(**dict(zip(names, row, strict=True))) for row in rows}


def _members(conv: str, rows: Iterable[tuple[Any, ...]]) -> list[Member]:
    return [Member(conv, user, role, since) for user, role, since, gone in rows if gone is False]


def _settings(user: int, conv: str, row: Sequence[Any]) -> Settings | None:
    muted, pinned, hidden, nickname, draft = row
    if muted is None:
        return None
    return Settings(
        conv=conv,
        user=user,
        muted=muted,
        pinned=pinned,
        hidden=hidden,
        nickname=nickname,
        draft=draft,
    )
