"""The stores, as contracts. Each is a page; every backend passes tests/conformance unchanged.

What nodes share beside these: `storage.shared`.

All methods may raise `storage.errors.Unavailable`. A cancelled call may or may not have happened.
No backend raises a driver's error, and none keeps a reference to what it was given.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from storage.records import (
    Commit,
    Group,
    Head,
    Loaded,
    Member,
    Membership,
    Session,
    Settings,
    User,
)


class Timeline(Protocol):
    """The logs of all conversations, and what changes in their order: members, groups, marks.

    Many nodes may share one. A conversation has one writer at a time, known by its epoch: what is
    written under an epoch is void once the conversation was taken up (`load`) and written to under
    a higher one, however late it lands; void parts never become part of the log, and raise nothing.
    So a writer may believe what a commit returned only while its lease is good. Epochs are above 0;
    where one process is alone, none are given.
    """

    async def commit(self, commit: Commit) -> None:
        """Make a turn durable; when this returns, no crash can lose it.

        One call is made at a time. An append whose `first` is not the stored head + 1 is a fault of
        the caller: the whole commit is refused with `ValueError` and nothing is written (a store
        that would have to read for it relies on the caller). Marks only move forward; an older one
        is ignored. Raises `Unavailable`, with `applied`; after None, the conversation must be
        loaded again before it is written to, and what lands later than that load is void too.
        """

    async def load(
        self, convs: Sequence[str], tail: int, epochs: Mapping[str, int] | None = None
    ) -> dict[str, Loaded]:
        """What actors need to take up these conversations, each with its newest `tail` entries.

        With `epochs` (one for each): as their writer, under these epochs; `Loaded.doubt` is told
        until one has written something.
        """

    async def put_away(self, epochs: Mapping[str, int]) -> None:
        """Their writer under these epochs has done with these conversations.

        Its commits have ended; what one that is still under way writes to stays in hand. From now
        on their heads are told exactly. Where another has written since, nothing happens.
        """

    async def left_open(self, slots: Collection[int]) -> list[str]:
        """Conversations in these slots that were written to and not put away.

        Who takes over a slot takes them up: their last entries may have been told to nobody.
        """

    async def read(
        self, conv: str, *, after: int | None = None, before: int | None = None, limit: int
    ) -> list[bytes]:
        """Payloads in their present state, ascending by seq, at most `limit`.

        With `after`: the oldest ones with seq > after. With `before`: the newest with seq < before.
        With neither: the newest. With both: the oldest of those strictly between.
        """

    async def heads(self, convs: Sequence[str]) -> dict[str, Head]:
        """The head of each conversation; an empty one has seq 0."""

    async def next_group_id(self) -> int:
        """An id that no group has or had; ids may be skipped."""

    async def memberships(
        self, user: int, *, past: Mapping[str, int] | None = None
    ) -> list[Membership]:
        """The conversations that the user is in now, in any order; direct ones once they have
        an entry.

        With `past`, those may be left out that surely have no entry beyond it (0 where it names
        none), which spares a store from looking at all their groups.
        """

    async def find_groups(self, query: str, *, after: int, limit: int) -> list[tuple[Group, int]]:
        """Living public groups with id > after whose title contains `query` (without regard to
        case), ascending by id, each with its member count."""

    async def groups(self, ids: Iterable[int]) -> dict[int, tuple[Group, int]]:
        """Groups (dissolved ones too) and their member counts; unknown ids are left out."""

    async def members(self, conv: str, *, after: int, limit: int) -> list[Member]:
        """Members with user > after, ascending by user."""

    async def settings(self, user: int, conv: str) -> Settings | None:
        """What the user set for the conversation, if anything."""

    async def put_settings(self, settings: Settings, epoch: int = 0) -> None:
        """Replace what a user set for a conversation, under the epoch of its writer.

        What is put under a lower epoch than what is there is void, and raises nothing.
        """


class Directory(Protocol):
    """Accounts and their sessions."""

    async def create_users(
        self, users: Sequence[User], password_hashes: Sequence[str | None]
    ) -> list[User]:
        """Create accounts (all or none) and return them with their ids; a given `id` is ignored.

        Raises `NameTaken`; names are compared by `name_key`. A hash of None: no password login.
        """

    async def users(self, ids: Iterable[int]) -> dict[int, User]:
        """The accounts that exist among these."""

    async def users_by_name(self, names: Iterable[str]) -> dict[str, User]:
        """By `name_key` of each name asked for; unknown names are left out."""

    async def find_users(self, prefix: str, *, limit: int) -> list[User]:
        """Accounts, not disabled, whose `name_key` begins with that of `prefix`, by name."""

    async def list_users(self, *, after: int, limit: int) -> list[User]:
        """Accounts with id > after, ascending."""

    async def update_user(self, user: int, changes: dict[str, Any]) -> User:
        """Set fields of `User` by name (never `id`, `name`) and return it. Raises `NoSuchUser`."""

    async def password_hash(self, user: int) -> str | None:
        """The argon2 hash, or None where the account has no password. Raises `NoSuchUser`."""

    async def set_password(self, user: int, password_hash: str) -> None:
        """Store it, end all sessions, and raise `generation`. Raises `NoSuchUser`."""

    async def seen(self, users: dict[int, int]) -> None:
        """Record when users were last seen ({user: ms since 1970}); never moves backwards."""

    async def create_session(self, session: Session) -> None:
        """Begin a family of refresh tokens."""

    async def rotate(
        self, token_hash: bytes, new_hash: bytes, *, now: int, expires: int
    ) -> Session | None:
        """Use up a refresh token: its session, now good for `new_hash` until `expires`.

        None if the token is unknown, expired or its session has ended. If it was used before, the
        whole session is ended (and None returned): somebody has a copy.
        """

    async def end_session(self, session: str, *, now: int) -> None:
        """End a session: its refresh and access tokens are dead. Unknown ones are ignored."""

    async def ended_sessions(self, sessions: Iterable[str]) -> set[str]:
        """Those among these which are known to have ended."""

    async def purge(self, *, now: int) -> None:
        """Forget sessions, live or ended, that expired before `now`."""


class Store(Timeline, Directory, Protocol):
    """One backend that keeps both."""

    async def ping(self) -> None:
        """Prove that a write could be done now, without doing one that is kept. For `/readyz`."""


def name_key(name: str) -> str:
    """The form in which user names are compared: NFKC, case-folded."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
