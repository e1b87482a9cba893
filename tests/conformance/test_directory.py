"""What every directory must do: accounts by any name, sessions that end, tokens used once."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import NameTaken, NoSuchUser
from storage.interfaces import Store, name_key
from tests.conformance.making import session, user


async def test_accounts_are_created_with_ids_and_read_back(store: Store) -> None:
    made = await store.create_users(
        [user("ana", nickname="Ana \U0001f600", disabled=True, created=5), user("bo")],
        ["hash", None],
    )
    ana, bo = made
    assert 0 < ana.id < bo.id
    assert await store.users([bo.id, ana.id, 404]) == {ana.id: ana, bo.id: bo}
    assert (ana.name, ana.nickname, ana.disabled, ana.created) == ("ana", "Ana \U0001f600", True, 5)
    assert await store.password_hash(ana.id) == "hash"
    assert await store.password_hash(bo.id) is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Ana", "aNA"),
        ("straße", "STRASSE"),
        ("Ａｎａ", "ana"),
        ("ﬁn", "FIN"),
        ("é", "e\u0301"),
        ("ΟΔΟΣ", "οδος"),
        ("İ", "i\u0307"),
        ("㎏", "kg"),
    ],
)
async def test_names_that_look_the_same_are_the_same(store: Store, first: str, second: str) -> None:
    (made,) = await store.create_users([user(first)], [None])
    assert await store.users_by_name([second]) == {name_key(second): made}
    with pytest.raises(NameTaken):
        await store.create_users([user("other"), user(second)], [None, None])
    assert await store.users_by_name(["other"]) == {}
    with pytest.raises(NameTaken):
        await store.create_users([user("a" + first), user("a" + second)], [None, None])


@pytest.mark.parametrize(("first", "second"), [("ı", "i"), ("İ", "i"), ("a", "b"), ("ss", "s")])
async def test_names_that_differ_are_different(store: Store, first: str, second: str) -> None:
    made = await store.create_users([user(first), user(second)], [None, None])
    assert await store.users_by_name([first, second, "404"]) == {
        name_key(account.name): account for account in made
    }


@given(st.text())
def test_the_key_of_a_key_is_the_key(name: str) -> None:
    assert name_key(name_key(name)) == name_key(name)


async def test_people_are_found_by_the_beginning_of_their_name(store: Store) -> None:
    names = ["Anabel", "ana", "anana", "ANÄ", "bo", "an\U0010ffff", "an%", "a", "\ud7ffx"]
    await store.create_users([user(name) for name in names], [None] * len(names))
    await store.create_users([user("anabis", disabled=True)], [None])

    async def find(prefix: str, limit: int = 99) -> list[str]:
        return [found.name for found in await store.find_users(prefix, limit=limit)]

    assert await find("AN") == ["an%", "ana", "Anabel", "anana", "ANÄ", "an\U0010ffff"]
    assert await find("ana", 2) == ["ana", "Anabel"]
    assert await find("%") == []
    assert await find("an\U0010ffff") == ["an\U0010ffff"]
    assert await find("\ud7ff") == ["\ud7ffx"]
    assert len(await find("")) == len(names)
    assert await find("", 0) == []


async def test_accounts_are_listed_in_pages(store: Store) -> None:
    made = await store.create_users([user(f"u{n}") for n in range(300)], [None] * 300)
    assert await store.list_users(after=0, limit=2) == made[:2]
    assert await store.list_users(after=made[297].id, limit=9) == made[298:]


async def test_an_account_is_changed_field_by_field(store: Store) -> None:
    (ana,) = await store.create_users([user("ana")], [None])
    changed = await store.update_user(ana.id, {"bio": "b\0io", "disabled": True})
    assert (changed.bio, changed.disabled, changed.name) == ("b\0io", True, "ana")
    assert await store.users([ana.id]) == {ana.id: changed}
    assert await store.update_user(ana.id, {}) == changed
    for wrong in ({"id": 7}, {"name": "bo"}, {"password_hash": "x"}, {"bio = 1 --": ""}):
        with pytest.raises(ValueError, match="not changeable"):
            await store.update_user(ana.id, wrong)
    assert await store.users([ana.id]) == {ana.id: changed}


async def test_nobody_has_no_account(store: Store) -> None:
    for refused in (
        lambda: store.update_user(404, {"bio": ""}),
        lambda: store.update_user(404, {}),
        lambda: store.password_hash(404),
        lambda: store.set_password(404, "hash"),
    ):
        with pytest.raises(NoSuchUser):
            await refused()


async def test_last_seen_never_moves_backwards(store: Store) -> None:
    ana, bo = await store.create_users([user("ana"), user("bo")], [None, None])
    await store.seen({ana.id: 50, bo.id: 60, 404: 1})
    await store.seen({ana.id: 40, bo.id: 70})
    seen = await store.users([ana.id, bo.id])
    assert [account.last_seen for account in seen.values()] == [50, 70]


async def test_a_refresh_token_is_good_once_and_its_second_use_ends_the_session(
    store: Store,
) -> None:
    await store.create_session(session("s", 5, b"one"))
    rotated = await store.rotate(b"one", b"two", now=10, expires=2000)
    assert rotated == session("s", 5, b"two", expires=2000)
    assert await store.ended_sessions(["s"]) == set()
    assert await store.rotate(b"one", b"thief", now=20, expires=3000) is None
    assert await store.ended_sessions(["s", "unknown"]) == {"s"}
    assert await store.rotate(b"two", b"three", now=30, expires=3000) is None
    assert await store.rotate(b"thief", b"x", now=30, expires=3000) is None


async def test_a_token_expires(store: Store) -> None:
    await store.create_session(session("s", 5, b"one", expires=100))
    assert await store.rotate(b"one", b"two", now=100, expires=200) is None
    assert await store.ended_sessions(["s"]) == set()
    assert await store.rotate(b"one", b"two", now=99, expires=200) is not None
    assert await store.rotate(b"unknown", b"x", now=99, expires=200) is None


async def test_of_two_uses_at_once_one_is_a_copy(store: Store) -> None:
    await store.create_session(session("s", 5, b"one"))
    results = []

    async def use(new: bytes) -> None:
        results.append(await store.rotate(b"one", new, now=1, expires=2))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use, b"a")
        nursery.start_soon(use, b"b")
    assert sorted(result is None for result in results) == [False, True]
    assert await store.ended_sessions(["s"]) == {"s"}


async def test_an_ended_session_is_dead(store: Store) -> None:
    await store.create_session(session("s", 5, b"one"))
    await store.create_session(session("t", 5, b"other"))
    await store.end_session("s", now=10)
    await store.end_session("s", now=11)
    await store.end_session("unknown", now=11)
    assert await store.ended_sessions(["s", "t", "unknown"]) == {"s"}
    assert await store.rotate(b"one", b"two", now=12, expires=99) is None
    assert await store.rotate(b"other", b"two", now=12, expires=99) is not None


async def test_the_same_session_is_not_begun_twice(store: Store) -> None:
    await store.create_session(session("s", 5, b"one"))
    for again in (session("s", 6, b"other"), session("t", 6, b"one")):
        with pytest.raises(ValueError, match="session"):
            await store.create_session(again)
    assert await store.rotate(b"other", b"x", now=1, expires=9) is None


async def test_a_new_password_ends_all_sessions(store: Store) -> None:
    ana, bo = await store.create_users([user("ana"), user("bo")], ["old", "old"])
    for id_, owner in (("a", ana), ("b", ana), ("c", bo)):
        await store.create_session(session(id_, owner.id, id_.encode()))
    await store.set_password(ana.id, "new")
    assert await store.ended_sessions(["a", "b", "c"]) == {"a", "b"}
    assert await store.password_hash(ana.id) == "new"
    found = await store.users([ana.id, bo.id])
    assert [found[ana.id].generation, found[bo.id].generation] == [1, 0]


async def test_what_expired_is_forgotten_and_the_rest_kept(store: Store) -> None:
    await store.create_session(session("old", 5, b"old", expires=100))
    await store.create_session(session("ended", 5, b"ended", expires=300))
    await store.create_session(session("live", 5, b"live", expires=100))
    await store.end_session("old", now=50)
    await store.end_session("ended", now=50)
    await store.rotate(b"live", b"live2", now=50, expires=300)
    await store.purge(now=200)
    assert await store.ended_sessions(["old", "ended", "live"]) == {"ended"}
    # The used token has expired too, so its second use is only a stale one.
    assert await store.rotate(b"live", b"x", now=201, expires=999) is None
    assert await store.rotate(b"live2", b"live3", now=201, expires=999) is not None
    # A used token that has not expired is still recognised after a purge.
    await store.purge(now=202)
    assert await store.rotate(b"live2", b"x", now=203, expires=999) is None
    assert await store.ended_sessions(["live"]) == {"live"}


async def test_no_reference_is_kept_to_an_account_or_a_session(store: Store) -> None:
    given_user, given_session = user("ana"), session("s", 5, b"one")
    (made,) = await store.create_users([given_user], [None])
    await store.create_session(given_session)
    given_user.bio = made.bio = "changed"
    given_session.token_hash = b"changed"

    async def look() -> None:
        found = (await store.users([made.id]))[made.id]
        assert found.bio == ""
        found.bio = "changed"

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(look)
    assert await store.rotate(b"one", b"two", now=1, expires=9) is not None


async def test_ping_proves_that_the_store_is_ready(store: Store) -> None:
    await store.ping()
