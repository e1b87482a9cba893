"""Logs, members, groups and marks in dicts. A commit is checked first and then applied in one go,
so that a refused one leaves nothing behind. No limits, no I/O.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from copy import copy

import msgspec
import trio
from msgspec import Struct, field

from storage.interfaces import name_key
from storage.names import direct_members, direct_users, group_conv, group_id, slot_of
from storage.records import (
    Commit,
    Group,
    Head,
    Loaded,
    Mark,
    Member,
    Membership,
    Settings,
)


class _Conversation(Struct):
    payloads: list[bytes] = field(default_factory=list)
    ts: int = 0
    members: dict[int, Member] = field(default_factory=dict)
    marks: dict[int, Mark] = field(default_factory=dict)
    epoch: int = 0
    """The highest under which it was taken up; what comes under a lower one is void."""
    open: bool = False
    writer: int = 0
    """The epoch of who wrote last."""

    @property
    def head(self) -> Head:
        return Head(seq=len(self.payloads), ts=self.ts, open=self.open)


class MemoryTimeline:
    """`storage.interfaces.Timeline`. `accounts` tells which users exist."""

    def __init__(self, *, accounts: Container[int]) -> None:
        self._accounts = accounts
        self._conversations: dict[str, _Conversation] = {}
        self._groups: dict[int, Group] = {}
        self._settings: dict[tuple[int, str], Settings] = {}
        self._settings_epochs: dict[tuple[int, str], int] = {}
        self._convs_of: dict[int, set[str]] = {}
        self._last_group_id = 0

    async def commit(self, commit: Commit) -> None:
        await trio.lowlevel.checkpoint()
        commit = self._without_void(commit)
        self._check(commit)
        for conv, epoch in commit.epochs.items():
            self._conversation(conv).open = True
            self._conversation(conv).writer = epoch
        for append in commit.appends:
            conversation = self._conversation(append.conv)
            conversation.payloads.extend(append.payloads)
            conversation.ts = append.ts
            if append.first == 1:
                for user in direct_users(append.conv):
                    self._convs_of.setdefault(user, set()).add(append.conv)
        for revision in commit.revisions:
            self._conversations[revision.conv].payloads[revision.seq - 1] = revision.payload
        for group in commit.groups:
            self._groups[group.id] = copy(group)
        self._change_members(commit)
        for mark in commit.marks:
            marks = self._conversation(mark.conv).marks
            old = marks.get(mark.user, Mark(conv=mark.conv, user=mark.user))
            marks[mark.user] = Mark(
                conv=mark.conv,
                user=mark.user,
                read=max(old.read, mark.read),
                delivered=max(old.delivered, mark.delivered),
            )

    def _without_void(self, commit: Commit) -> Commit:
        """What is left when the parts of writers whose time is over are passed over."""
        void = {conv for conv, epoch in commit.epochs.items() if epoch < self._epoch(conv)}
        return commit.without(void) if void else commit

    def _check(self, commit: Commit) -> None:
        heads: dict[str, int] = {}
        for append in commit.appends:
            head = heads.get(append.conv, self._head(append.conv).seq)
            if not append.payloads or append.first != head + 1:
                raise ValueError(
                    f"{append.conv}: {len(append.payloads)} entries from {append.first} on "
                    f"do not follow the head {head}"
                )
            heads[append.conv] = append.last
        for revision in commit.revisions:
            head = heads.get(revision.conv, self._head(revision.conv).seq)
            if not 1 <= revision.seq <= head:
                raise ValueError(f"{revision.conv}: no entry {revision.seq} to revise")

    def _change_members(self, commit: Commit) -> None:
        for conv, user in commit.gone:
            members = self._conversation(conv).members
            if not direct_users(conv) and user in members:
                del members[user]
                self._convs_of[user].discard(conv)
        for member in commit.members:
            if not direct_users(member.conv):
                self._conversation(member.conv).members[member.user] = copy(member)
                self._convs_of.setdefault(member.user, set()).add(member.conv)

    async def load(
        self, convs: Sequence[str], tail: int, epochs: Mapping[str, int] | None = None
    ) -> dict[str, Loaded]:
        await trio.lowlevel.checkpoint()
        for conv, epoch in (epochs or {}).items():
            conversation = self._conversation(conv)
            conversation.epoch = max(conversation.epoch, epoch)
        return {conv: self._load(conv, tail, (epochs or {}).get(conv, 0)) for conv in convs}

    def _load(self, conv: str, tail: int, epoch: int) -> Loaded:
        conversation = self._conversations.get(conv, _Conversation())
        group = self._groups.get(group_id(conv) or 0)
        return Loaded(
            conv=conv,
            head=msgspec.structs.replace(conversation.head, open=False),
            tail=conversation.payloads[-tail:] if tail > 0 else [],
            members=self._members(conv),
            marks=[copy(mark) for _, mark in sorted(conversation.marks.items())],
            group=copy(group),
            missing_users=[user for user in direct_users(conv) if user not in self._accounts],
            doubt=conversation.open and conversation.writer < epoch,
        )

    async def put_away(self, epochs: Mapping[str, int]) -> None:
        await trio.lowlevel.checkpoint()
        for conv, epoch in epochs.items():
            if conv in self._conversations and epoch >= self._epoch(conv):
                self._conversations[conv].open = False

    async def left_open(self, slots: Collection[int]) -> list[str]:
        await trio.lowlevel.checkpoint()
        return [
            conv
            for conv, conversation in self._conversations.items()
            if conversation.open and slot_of(conv) in slots
        ]

    async def read(
        self, conv: str, *, after: int | None = None, before: int | None = None, limit: int
    ) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        payloads = self._conversations.get(conv, _Conversation()).payloads
        low = max(0, after or 0)
        high = len(payloads) if before is None else min(len(payloads), max(0, before - 1))
        if after is None:
            low = max(0, high - max(0, limit))
        return payloads[low : min(high, low + max(0, limit))]

    async def heads(self, convs: Sequence[str]) -> dict[str, Head]:
        await trio.lowlevel.checkpoint()
        return {conv: self._head(conv) for conv in convs}

    async def next_group_id(self) -> int:
        await trio.lowlevel.checkpoint()
        self._last_group_id = max(self._last_group_id, *self._groups, 0) + 1
        return self._last_group_id

    async def memberships(
        self, user: int, *, past: Mapping[str, int] | None = None
    ) -> list[Membership]:
        await trio.lowlevel.checkpoint()
        return [self._membership(user, conv) for conv in self._convs_of.get(user, ())]

    def _membership(self, user: int, conv: str) -> Membership:
        conversation = self._conversations[conv]
        member = conversation.members.get(user, Member(conv=conv, user=user))
        mark = conversation.marks.get(user, Mark(conv=conv, user=user))
        group = self._groups.get(group_id(conv) or 0)
        return Membership(
            conv=conv,
            role=member.role,
            since=member.since,
            head=conversation.head,
            read=mark.read,
            delivered=mark.delivered,
            settings=copy(self._settings.get((user, conv))),
            title=group.title if group else "",
            avatar=group.avatar if group else "",
            history=group.history if group else "all",
        )

    async def find_groups(self, query: str, *, after: int, limit: int) -> list[tuple[Group, int]]:
        await trio.lowlevel.checkpoint()
        key = name_key(query)
        found = [
            group
            for id_, group in sorted(self._groups.items())
            if id_ > after
            and group.visibility == "public"
            and not group.dissolved
            and key in name_key(group.title)
        ]
        return [self._with_count(group) for group in found[: max(0, limit)]]

    async def groups(self, ids: Iterable[int]) -> dict[int, tuple[Group, int]]:
        await trio.lowlevel.checkpoint()
        return {id_: self._with_count(self._groups[id_]) for id_ in ids if id_ in self._groups}

    async def members(self, conv: str, *, after: int, limit: int) -> list[Member]:
        await trio.lowlevel.checkpoint()
        found = [member for member in self._members(conv) if member.user > after]
        return found[: max(0, limit)]

    async def settings(self, user: int, conv: str) -> Settings | None:
        await trio.lowlevel.checkpoint()
        return copy(self._settings.get((user, conv)))

    async def put_settings(self, settings: Settings, epoch: int = 0) -> None:
        await trio.lowlevel.checkpoint()
        key = settings.user, settings.conv
        if epoch >= self._settings_epochs.get(key, 0):
            self._settings[key] = copy(settings)
            self._settings_epochs[key] = epoch

    def _conversation(self, conv: str) -> _Conversation:
        return self._conversations.setdefault(conv, _Conversation())

    def _epoch(self, conv: str) -> int:
        return self._conversations[conv].epoch if conv in self._conversations else 0

    def _head(self, conv: str) -> Head:
        return self._conversations[conv].head if conv in self._conversations else Head()

    def _members(self, conv: str) -> list[Member]:
        if direct := direct_members(conv):
            return direct
        members = self._conversations.get(conv, _Conversation()).members
        return [copy(member) for _, member in sorted(members.items())]

    def _with_count(self, group: Group) -> tuple[Group, int]:
        conversation = self._conversations.get(group_conv(group.id), _Conversation())
        return copy(group), len(conversation.members)
