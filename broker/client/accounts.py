"""Logging in, registering and renewing a login: one command on a connection of its own each.

Nothing is kept here; passwords and tokens go nowhere but to the broker.
"""

from __future__ import annotations

import ssl
from typing import Any

import trio

from broker.client.address import Address
from broker.client.codec import pack, unpack
from broker.client.errors import BadAnswer, ConnectFailed
from broker.client.limits import OPENING_SECONDS
from broker.client.model import Credentials
from broker.client.session import outcome_of
from broker.client.transport import OpenStream, TransportBroken, open_stream, open_transport

_Fields = dict[str, Any]


async def login(
    url: str,
    name: str,
    password: str,
    *,
    device: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    open_stream: OpenStream = open_stream,
) -> Credentials:
    """Log in by name and password.

    Raises `NotLoggedIn` (wrong name or password), `ConnectFailed`, `CommandError`.
    """
    fields: _Fields = {"name": name, "password": password, "device": device}
    return _credentials(await _ask(url, "login", fields, ssl_context, open_stream))


async def register(
    url: str,
    name: str,
    password: str,
    *,
    nickname: str | None = None,
    email: str | None = None,
    phone: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    open_stream: OpenStream = open_stream,
) -> int:
    """Make an account and return its user id; `login` comes next.

    Raises `CommandError` (`conflict`: the name is taken), `ConnectFailed`.
    """
    fields: _Fields = {"name": name, "password": password}
    fields |= {"nickname": nickname, "email": email, "phone": phone}
    answer = await _ask(url, "register", fields, ssl_context, open_stream)
    return int(answer["user"])


async def refresh(
    url: str,
    refresh_token: str,
    *,
    ssl_context: ssl.SSLContext | None = None,
    open_stream: OpenStream = open_stream,
) -> Credentials:
    """Renew a login before it expires; `refresh_token` is used up by this.

    Raises `NotLoggedIn` (used before, or expired), `ConnectFailed`, `CommandError`.
    """
    fields: _Fields = {"refresh": refresh_token}
    return _credentials(await _ask(url, "refresh", fields, ssl_context, open_stream))


async def _ask(
    url: str,
    name: str,
    fields: _Fields,
    ssl_context: ssl.SSLContext | None,
    opener: OpenStream,
) -> _Fields:
    """Open a connection, perform one opening command, close."""
    address = Address.parse(url)
    command = {field: value for field, value in fields.items() if value is not None}
    async with open_transport(address, ssl_context, opener) as transport:
        try:
            with trio.fail_after(OPENING_SECONDS):
                await transport.send([pack({**command, "t": name, "id": 1})])
                while True:
                    for data in await transport.receive():
                        frame = unpack(data)
                        if frame.get("t") in ("ok", "error"):
                            outcome = outcome_of(frame)
                            if isinstance(outcome, dict):
                                return outcome
                            raise outcome
                        if frame.get("t") == "bye":
                            raise ConnectFailed(f"{address} said goodbye, {frame.get('code')}")
        except TransportBroken as error:
            raise ConnectFailed(f"{address} did not answer: {error}") from error
        except trio.TooSlowError as error:
            raise ConnectFailed(f"{address} did not answer in {OPENING_SECONDS:g} s") from error
    raise AssertionError


def _credentials(answer: _Fields) -> Credentials:
    try:
        return Credentials(
            answer["token"], answer["refresh"], answer["expires"], answer.get("user") or 0
        )
    except KeyError as error:
        raise BadAnswer(f"the broker logged in without {error}") from error
