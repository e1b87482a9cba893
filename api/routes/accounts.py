"""Registering, logging in and refreshing by HTTP: the same use cases as on the sockets."""

from __future__ import annotations

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from api.answers import Json, body_of
from broker.commands.account import LoggedIn, Services, login, refresh, register
from broker.wire.commands import Device, Name, NewPassword, Password, Text, Title


class RegisterBody(Struct):
    """A new account."""

    name: Name
    password: NewPassword
    nickname: Title | None = None
    email: Text | None = None
    phone: Text | None = None


class LoginBody(Struct):
    """A login by password."""

    name: Name
    password: Password
    device: Device | None = None


class RefreshBody(Struct):
    """A refresh token, which is used up by this."""

    refresh: str


class Registered(Struct):
    """The id of the new account."""

    user: int


class Session(Struct):
    """`token` opens connections until `expires` (ms since 1970); `refresh` gives new ones."""

    user: int
    session: str
    token: str
    refresh: str
    expires: int


_register = msgspec.json.Decoder(RegisterBody)
_login = msgspec.json.Decoder(LoginBody)
_refresh = msgspec.json.Decoder(RefreshBody)


class Accounts:
    """The endpoints."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def register(self, request: Request) -> Response:
        """Make an account."""
        body = await body_of(request, _register)
        user = await register(
            self._services,
            body.name,
            body.password,
            nickname=body.nickname or "",
            email=body.email or "",
            phone=body.phone or "",
            address=_address(request),
        )
        return Json({"user": user.id}, 201)

    async def login(self, request: Request) -> Response:
        """Begin a session."""
        body = await body_of(request, _login)
        done = await login(
            self._services, body.name, body.password, body.device or "", _address(request)
        )
        return _session(done)

    async def refresh(self, request: Request) -> Response:
        """Renew a session."""
        body = await body_of(request, _refresh)
        return _session(await refresh(self._services, body.refresh))


def _session(done: LoggedIn) -> Response:
    return Json(
        {
            "user": done.user.id,
            "session": done.session,
            "token": done.token,
            "refresh": done.refresh,
            "expires": done.expires,
        }
    )


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else ""
