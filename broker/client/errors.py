"""What the client raises, each saying what happened and what to do next. It decides nothing.

`ParleyClientError` catches them all. No exception holds a token or a password.
"""

from __future__ import annotations


class ParleyClientError(Exception):
    """Base of all that the client raises on purpose."""


class ConnectFailed(ParleyClientError):
    """No connection could be opened: check the address, and whether the broker runs and is
    reachable. Only the first attempt raises this; later ones are repeated in the background."""


class NotLoggedIn(ParleyClientError):
    """The token, password or session is not (or no longer) good: log in again."""


class ConnectionEnded(ParleyClientError):
    """The broker ended the connection and asked not to come back; `code` says why.

    `replaced`: another connection took this one's place. `bad_frame`: what was sent was no frame.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} ({code})" if code not in message else message)
        self.code = code


class ClientClosed(ParleyClientError):
    """The client was used after its `async with` block had ended."""


class Disconnected(ParleyClientError):
    """The connection broke while this command was on its way: it may or may not have been done.

    Only commands that are not safe to repeat raise this. Look at what there is now, then decide.
    """


class CommandTimeout(ParleyClientError):
    """No answer within the time-out, reconnects included; the command may or may not be done.

    `key` is the command's key where it had one: sending the same again under it is safe.
    """

    def __init__(self, name: str, seconds: float, key: str | None) -> None:
        hint = "repeat it under the same key" if key else "look before you repeat it"
        super().__init__(f"{name} was not answered within {seconds:g} s; {hint}")
        self.key = key


class CommandError(ParleyClientError):
    """The broker refused a command.

    `code` is one of the protocol's error codes, `field` the field to blame, `after_ms` the wait in
    milliseconds after which a retry makes sense, `retry` whether the same command can succeed.
    What could be retried safely has already been when this is raised.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        field: str | None = None,
        after_ms: int | None = None,
        retry: bool = False,
    ) -> None:
        where = f" (field {field})" if field else ""
        super().__init__(f"{code}: {message}{where}")
        self.code = code
        self.message = message
        self.field = field
        self.after_ms = after_ms
        self.retry = retry


class BadAnswer(ParleyClientError):
    """The other side sent what the protocol does not allow: is it a Parley broker, and which?"""
