"""Who somebody is: logging in, registering, refreshing, and checking a session token.

Use cases, shared by sockets and HTTP: each takes plain values, reads or changes the store, returns
a plain result or raises `Refusal`. Nothing here knows a connection or a request. No password and
no token is kept or logged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from broker.commands.rates import SharedLimit
from broker.names import check_name
from broker.security.passwords import Passwords
from broker.security.tokens import Tokens, hash_refresh, new_refresh, new_session_id
from broker.wire.errors import Code, Refusal
from storage.errors import NameTaken
from storage.interfaces import Directory, name_key
from storage.records import Session, User

EMAIL_MAX_CHARS = 254
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")
_PHONE = re.compile(r"\+?[0-9][0-9 ()./-]{2,30}[0-9]")


class Services(Struct, frozen=True, kw_only=True):
    """What the use cases need. `address` everywhere is the caller's, without the port.

    `suspect` is called when a refresh token was no good: perhaps its session has ended by that.
    """

    store: Directory
    tokens: Tokens
    passwords: Passwords
    logins: SharedLimit
    registrations: SharedLimit
    refresh_ttl_ms: int
    now_ms: Callable[[], int]
    suspect: Callable[[], None]


class LoggedIn(Struct, frozen=True, kw_only=True):
    """A new or renewed session. `expires` is that of `token`, in ms since 1970."""

    user: User
    session: str
    token: str
    refresh: str
    expires: int


async def login(
    services: Services, name: str, password: str, device: str, address: str
) -> LoggedIn:
    """Begin a session by name and password. Which of the two was wrong is not told."""
    await _take(services.logins, address, "logins")
    users = await services.store.users_by_name([name])
    user = users.get(name_key(name))
    stored = await services.store.password_hash(user.id) if user is not None else None
    verdict = await services.passwords.verify(password, stored)
    if user is None or not verdict.good:
        raise Refusal(Code.UNAUTHENTICATED, "no such name and password")
    if user.disabled:
        raise Refusal(Code.FORBIDDEN, "this account is disabled")
    now = services.now_ms()
    refresh = new_refresh()
    session = Session(
        id=new_session_id(),
        user=user.id,
        token_hash=hash_refresh(refresh),
        device=device,
        created=now,
        expires=now + services.refresh_ttl_ms,
    )
    await services.store.create_session(session)
    return _logged_in(services, user, session.id, refresh)


async def register(
    services: Services,
    name: str,
    password: str,
    *,
    nickname: str = "",
    email: str = "",
    phone: str = "",
    address: str,
) -> User:
    """Make an account. A login has to follow."""
    check_name(name)
    check_email(email)
    check_phone(phone)
    await _take(services.registrations, address, "registrations")
    if await services.store.users_by_name([name]):
        raise _taken(name)
    password_hash = await services.passwords.hash(password)
    user = User(
        id=0,
        name=name,
        nickname=nickname,
        email=email,
        phone=phone,
        created=services.now_ms(),
    )
    try:
        (created,) = await services.store.create_users([user], [password_hash])
    except NameTaken:
        raise _taken(name) from None
    return created


async def refresh(services: Services, token: str) -> LoggedIn:
    """Renew a session. The refresh token is used up; using it again ends the session."""
    renewed = new_refresh()
    now = services.now_ms()
    session = await services.store.rotate(
        hash_refresh(token), hash_refresh(renewed), now=now, expires=now + services.refresh_ttl_ms
    )
    if session is None:
        services.suspect()
        raise Refusal(
            Code.UNAUTHENTICATED,
            "this refresh token is unknown, expired or used up: log in again",
            field="refresh",
        )
    users = await services.store.users([session.user])
    user = users.get(session.user)
    if user is None or user.disabled:
        raise Refusal(Code.FORBIDDEN, "this account is disabled")
    return _logged_in(services, user, session.id, renewed)


class Claim(Protocol):
    """Somebody's session, as it was when its token was made; `Claims` is one."""

    @property
    def user(self) -> int: ...

    @property
    def session(self) -> str: ...

    @property
    def generation(self) -> int: ...


async def vouch(store: Directory, claims: Sequence[Claim]) -> list[User | Refusal]:
    """For each session: whose it is, or why it is good no more.

    Two looks into the store, however many sessions there are. Raises `Unavailable`.
    """
    users = await store.users({c.user for c in claims})
    ended = await store.ended_sessions({c.session for c in claims})
    return [_standing(c, users.get(c.user), c.session in ended) for c in claims]


def _standing(claims: Claim, user: User | None, ended: bool) -> User | Refusal:
    if user is None:
        return _no_session("there is no such user any more")
    if user.disabled:
        return Refusal(Code.FORBIDDEN, "this account is disabled", field="token")
    if ended or claims.generation != user.generation:
        return _no_session("this session has ended: log in again")
    return user


def check_email(email: str) -> None:
    """Whether it looks like one; if it is one, only a letter to it could tell. Empty is none."""
    if email and (len(email) > EMAIL_MAX_CHARS or not _EMAIL.fullmatch(email)):
        raise Refusal(Code.BAD_REQUEST, "this is not an email address", field="email")


def check_phone(phone: str) -> None:
    """Whether it looks like a telephone number. Empty is none."""
    if phone and not _PHONE.fullmatch(phone):
        raise Refusal(Code.BAD_REQUEST, "this is not a telephone number", field="phone")


def _logged_in(services: Services, user: User, session: str, refresh: str) -> LoggedIn:
    token, expires = services.tokens.issue(user.id, session, user.generation, now=services.now_ms())
    return LoggedIn(user=user, session=session, token=token, refresh=refresh, expires=expires)


async def _take(limit: SharedLimit, address: str, what: str) -> None:
    wait_ms = await limit.wait_ms(address)
    if wait_ms:
        raise Refusal(Code.RATE_LIMITED, f"too many {what} from this address", after_ms=wait_ms)


def _taken(name: str) -> Refusal:
    return Refusal(Code.CONFLICT, f"the name {name!r} is taken", field="name")


def _no_session(message: str) -> Refusal:
    return Refusal(Code.UNAUTHENTICATED, message, field="token")
