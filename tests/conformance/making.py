"""Short ways to make the records that the tests are about."""

from __future__ import annotations

from typing import Any

from storage.records import Append, Commit, Entry, Group, Session, User, encode_entry


def payload(seq: int, body: Any = "hi") -> bytes:
    return encode_entry(Entry(seq=seq, sender=5, ts=1000 + seq, kind="text", body=body, key="k"))


def payloads(first: int, last: int) -> list[bytes]:
    return [payload(seq) for seq in range(first, last + 1)]


def append(conv: str, first: int, last: int) -> Append:
    return Append(conv=conv, first=first, payloads=payloads(first, last), ts=1000 + last)


def appending(conv: str, first: int, last: int) -> Commit:
    return Commit(appends=[append(conv, first, last)])


def group(id_: int, title: str = "Tea", **changes: Any) -> Group:
    fields: dict[str, Any] = {
        "kind": "group",
        "visibility": "public",
        "join": "open",
        "history": "joined",
        "created": 7,
    }
    return Group(id=id_, title=title, **{**fields, **changes})


def user(name: str, **fields: Any) -> User:
    return User(id=0, name=name, **fields)


def session(id_: str, user: int, token: bytes, *, expires: int = 1000) -> Session:
    return Session(id=id_, user=user, token_hash=token, device="phone", created=1, expires=expires)
