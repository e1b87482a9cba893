"""Session tokens (JWT, HS256) and refresh tokens. No I/O, no clock of its own when verifying.

A session token is verified once a connection. `jwt.decode` takes 28 µs, most of it in checks of
what a foreign token might look like; here the signature of the whole token is compared first, by
PyJWT's algorithm object, and only what we have signed ourselves is parsed: 4 µs, and stricter.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from base64 import urlsafe_b64decode

import jwt
import msgspec
from jwt.utils import base64url_encode
from msgspec import Struct

from broker.wire.errors import Code, Refusal

ALGORITHM = "HS256"
ISSUER = "parley"
ACCESS = "access"
TOKEN_MAX_CHARS = 1024
REFRESH_BYTES = 32
REFRESH_PREFIX = "pr_"
"""Makes a refresh token recognisable to those who look for leaked secrets, our log among them."""
SESSION_ID_BYTES = 12


class Claims(Struct, frozen=True, gc=False):
    """What a session token says: whose session it is. Times are milliseconds since 1970.

    `generation` is that of the user when the token was made: an older one than the user's present
    generation is worth nothing any more, which the caller has to check.
    """

    user: int
    session: str
    generation: int
    issued: int
    expires: int


class _Payload(Struct, frozen=True, gc=False):
    sub: str
    sid: str
    gen: int
    iat: int
    exp: int
    iss: str
    typ: str


class Tokens:
    """Issues and verifies the session tokens of one secret. `ttl` is their life in seconds."""

    def __init__(self, secret: bytes, ttl: int) -> None:
        self._ttl = ttl
        self._secret = secret
        self._algorithm = jwt.get_algorithm_by_name(ALGORITHM)
        self._key = self._algorithm.prepare_key(secret)
        # Every token begins with the same header: to compare it is to refuse all other algorithms.
        self._header = jwt.encode({}, secret, ALGORITHM).partition(".")[0] + "."
        self._decode = msgspec.json.Decoder(_Payload).decode

    def issue(
        self, user: int, sid: str, generation: int, *, now: int | None = None
    ) -> tuple[str, int]:
        """A token for a session, and when it expires (ms since 1970). `now` likewise."""
        issued = (now_ms() if now is None else now) // 1000
        expires = issued + self._ttl
        claims = {
            "sub": str(user),
            "sid": sid,
            "gen": generation,
            "iat": issued,
            "exp": expires,
            "iss": ISSUER,
            "typ": ACCESS,
        }
        return jwt.encode(claims, self._secret, ALGORITHM), expires * 1000

    def verify(self, token: str, now: int) -> Claims:
        """The claims of a good token. `now` is milliseconds since 1970.

        Raises `Refusal(unauthenticated)` for one that is no token of ours or has expired. Whether
        the user and the session still exist, and in which generation, is not known here.
        """
        signed, _, signature = token.rpartition(".")
        if (
            len(token) > TOKEN_MAX_CHARS
            or not token.isascii()
            or not signed.startswith(self._header)
        ):
            raise _refused("this is not a session token of this server")
        expected = base64url_encode(self._algorithm.sign(signed.encode(), self._key))
        if not hmac.compare_digest(expected, signature.encode()):
            raise _refused("the token was not signed by this server")
        claims = self._claims(signed)
        if claims.expires <= now:
            raise _refused("the session token has expired: refresh it or log in again")
        return claims

    def _claims(self, signed: str) -> Claims:
        """What our own signature vouches for; only another use of the same secret can fail here."""
        segment = signed[len(self._header) :]
        try:
            payload = self._decode(urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
            user = int(payload.sub)
        except (msgspec.DecodeError, ValueError):
            raise _refused("the token has not the claims of a session") from None
        if payload.iss != ISSUER or payload.typ != ACCESS:
            raise _refused("the token is not meant for sessions")
        return Claims(user, payload.sid, payload.gen, payload.iat * 1000, payload.exp * 1000)


def new_session_id() -> str:
    """An id that nobody can guess, for a session (`sid`)."""
    return secrets.token_urlsafe(SESSION_ID_BYTES)


def new_refresh() -> str:
    """A refresh token; only its hash is ever stored."""
    return REFRESH_PREFIX + secrets.token_urlsafe(REFRESH_BYTES)


def hash_refresh(token: str) -> bytes:
    """SHA-256 of a refresh token. It is random enough that a slow hash would add nothing."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def now_ms() -> int:
    """The wall clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _refused(message: str) -> Refusal:
    return Refusal(Code.UNAUTHENTICATED, message, field="token")
