"""The common commands as typed methods, over `command`. They hold no state and no rule.

Every method raises what `Client.command` raises.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from broker.client.codec import Frame
from broker.client.errors import BadAnswer
from broker.client.limits import COMMAND_SECONDS
from broker.client.model import (
    Ack,
    Conversation,
    Group,
    Member,
    Message,
    Page,
    UserPresence,
    conversation,
    group,
    member,
    message,
    user_presence,
)


def new_key() -> str:
    """A key that no other command of this user has."""
    return secrets.token_hex(12)


class Api(ABC):
    """What a client can do. Conversations are named `g/12` or `d/5/9`, entries by their seq."""

    @abstractmethod
    async def command(
        self,
        name: str,
        /,
        *,
        timeout: float = COMMAND_SECONDS,  # noqa: ASYNC109 - it bounds retries, too
        **fields: Any,
    ) -> Frame:
        """Perform any command; see `Client.command`."""

    # Messages

    async def send(
        self,
        conv: str | None = None,
        body: Any = "",
        *,
        to_user: int | None = None,
        kind: str = "text",
        key: str | None = None,
        reply_to: int | None = None,
        mentions: Iterable[int] | None = None,
        timeout: float = COMMAND_SECONDS,  # noqa: ASYNC109 - it bounds retries, too
    ) -> Ack:
        """Send a message to a conversation or to a user; it is durable when this returns.

        It is sent again under the same `key` (made here unless given) until it is acknowledged or
        `timeout` seconds are over.
        """
        if (conv is None) == (to_user is None):
            raise ValueError("a message goes to a conversation or to a user: name one of the two")
        answer = await self.command(
            "send",
            timeout=timeout,
            conv=conv,
            to=None if to_user is None else {"user": to_user},
            kind=kind,
            body=body,
            key=key or new_key(),
            reply_to=reply_to,
            mentions=None if mentions is None else list(mentions),
        )
        return _ack(answer, conv)

    async def edit(self, conv: str, ref: int, body: Any, *, key: str | None = None) -> Ack:
        """Replace the body of one's own message."""
        return await self._amend("edit", conv, ref, key, body=body)

    async def recall(self, conv: str, ref: int, *, key: str | None = None) -> Ack:
        """Take a message back; its body is gone for everybody."""
        return await self._amend("recall", conv, ref, key)

    async def pin(self, conv: str, ref: int, *, key: str | None = None) -> Ack:
        """Pin a message."""
        return await self._amend("pin", conv, ref, key)

    async def unpin(self, conv: str, ref: int, *, key: str | None = None) -> Ack:
        """Unpin a message."""
        return await self._amend("unpin", conv, ref, key)

    async def react(
        self, conv: str, ref: int, emoji: str, *, on: bool = True, key: str | None = None
    ) -> Ack:
        """Add a reaction to a message, or with `on=False` take it back."""
        return await self._amend("react", conv, ref, key, emoji=emoji, on=on)

    async def _amend(self, name: str, conv: str, ref: int, key: str | None, **more: Any) -> Ack:
        answer = await self.command(name, conv=conv, ref=ref, key=key or new_key(), **more)
        return _ack(answer, conv)

    # Reading

    async def history(
        self,
        conv: str,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int = 50,
    ) -> Page:
        """The entries before or after a seq, or the newest; at most `limit` (up to 200), and fewer
        where they are large. More are after it if the last seq is below the page's `head`."""
        answer = await self.command("history", conv=conv, before=before, after=after, limit=limit)
        entries = tuple(message(entry, conv) for entry in _maps(answer, "entries"))
        return Page(entries, _int(answer, "head"))

    async def message(self, conv: str, seq: int) -> tuple[Message, tuple[int, ...]]:
        """One entry in its present state, and who has read it (where the broker tells)."""
        answer = await self.command("message", conv=conv, seq=seq)
        return message(_map(answer, "entry"), conv), tuple(answer.get("readers") or ())

    async def read(self, conv: str, seq: int) -> int:
        """Mark as read up to `seq`; how many are unread then."""
        return _int(await self.command("read", conv=conv, seq=seq), "unread")

    async def delivered(self, conv: str, seq: int) -> None:
        """Mark as received up to `seq`."""
        await self.command("delivered", conv=conv, seq=seq)

    async def typing(self, conv: str, *, on: bool = True) -> None:
        """Tell the others that one is writing, or no longer."""
        await self.command("typing", conv=conv, on=on)

    async def conversations(
        self, *, after: str | None = None, limit: int = 50
    ) -> tuple[list[Conversation], str | None]:
        """A page of one's conversations, and what to give as `after` for the next, if any."""
        answer = await self.command("conversations", after=after, limit=limit)
        found = [conversation(each) for each in _maps(answer, "conversations")]
        return found, answer.get("next")

    async def configure(self, conv: str, **settings: Any) -> None:
        """Set one's own `muted`, `pinned`, `hidden`, `nickname` or `draft` of a conversation."""
        await self.command("conversation.set", conv=conv, **settings)

    # Groups

    async def create_group(self, title: str, **options: Any) -> Group:
        """Make a group: options are `kind`, `visibility`, `join`, `history`, `avatar`, `about`,
        `members`."""
        return _group(await self.command("group.create", title=title, **options))

    async def group(self, conv: str) -> Group:
        """A group's data."""
        return _group(await self.command("group.get", conv=conv))

    async def join(self, conv: str) -> Frame:
        """Become a member of a group."""
        return await self.command("group.join", conv=conv)

    async def leave(self, conv: str) -> Frame:
        """Cease to be a member of a group."""
        return await self.command("group.leave", conv=conv)

    async def invite(self, conv: str, users: Iterable[int]) -> Frame:
        """Make others members of a group."""
        return await self.command("group.invite", conv=conv, users=list(users))

    async def members(
        self, conv: str, *, after: int | None = None, limit: int = 50
    ) -> list[Member]:
        """Members with an id above `after`, ascending."""
        answer = await self.command("group.members", conv=conv, after=after, limit=limit)
        return [member(each) for each in _maps(answer, "members")]

    # People

    async def find_users(self, beginning: str, *, limit: int = 20) -> list[Frame]:
        """Public profiles of users whose name begins so."""
        return _maps(await self.command("user.find", query=beginning, limit=limit), "users")

    async def user_profile(self, user: int) -> Frame:
        """A user's public profile."""
        return await self.command("user.get", user=user)

    async def watch(self, users: Iterable[int]) -> list[UserPresence]:
        """Get `Presence` events of these users from now on; how they are now."""
        answer = await self.command("presence.watch", users=list(users))
        return [user_presence(each) for each in answer.get("users") or ()]

    async def unwatch(self, users: Iterable[int]) -> None:
        """No more `Presence` events of these users."""
        await self.command("presence.unwatch", users=list(users))


def _ack(answer: Frame, conv: str | None) -> Ack:
    name = answer.get("conv", conv)
    if not isinstance(name, str):
        raise BadAnswer("the broker acknowledged without conv")
    return Ack(name, _int(answer, "seq"), int(answer.get("ts") or 0), answer.get("online"))


def _group(answer: Frame) -> Group:
    inner = answer.get("group")
    return group(inner if isinstance(inner, dict) else answer)


def _int(answer: Frame, name: str) -> int:
    value = answer.get(name)
    if not isinstance(value, int):
        raise BadAnswer(f"the broker answered without {name}")
    return value


def _map(answer: Frame, name: str) -> Frame:
    value = answer.get(name)
    if not isinstance(value, dict):
        raise BadAnswer(f"the broker answered without {name}")
    return value


def _maps(answer: Frame, name: str) -> list[Frame]:
    value = answer.get(name)
    if not isinstance(value, list):
        raise BadAnswer(f"the broker answered without {name}")
    return value
