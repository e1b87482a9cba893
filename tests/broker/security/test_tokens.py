"""Session tokens are ours, whole and in time, or they are nothing."""

import timeit

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.security.tokens import Claims, Tokens, hash_refresh, new_refresh, new_session_id
from broker.wire.errors import Code, Refusal
from broker.wire.limits import MAX_ID

SECRET = b"0123456789abcdef0123456789abcdef"
NOW = 1_763_700_000_000
TTL = 3_600
TOKENS = Tokens(SECRET, TTL)
TOKEN, EXPIRES = TOKENS.issue(77, "session", 3, now=NOW)
GOOD = {
    "sub": "77",
    "sid": "s",
    "gen": 0,
    "iat": NOW // 1000,
    "exp": NOW // 1000 + TTL,
    "iss": "parley",
    "typ": "access",
}


def refusal_of(token: str, now: int = NOW) -> str:
    with pytest.raises(Refusal) as caught:
        TOKENS.verify(token, now)
    assert caught.value.code is Code.UNAUTHENTICATED
    return caught.value.message


@given(st.integers(1, MAX_ID), st.text(max_size=64), st.integers(0, MAX_ID))
def test_a_token_says_again_what_it_was_issued_for(user: int, sid: str, generation: int) -> None:
    token, expires = TOKENS.issue(user, sid, generation, now=NOW)

    assert TOKENS.verify(token, NOW) == Claims(user, sid, generation, NOW, expires)
    assert expires == NOW + TTL * 1000


def test_it_is_an_ordinary_jwt() -> None:
    options: jwt.types.Options = {"verify_exp": False}
    claims = jwt.decode(TOKEN, SECRET, ["HS256"], issuer="parley", options=options)

    assert claims == GOOD | {"sid": "session", "gen": 3}


def test_it_is_good_until_it_expires_and_not_a_millisecond_longer() -> None:
    assert TOKENS.verify(TOKEN, EXPIRES - 1).user == 77
    assert "expired" in refusal_of(TOKEN, EXPIRES)


@given(st.data())
def test_no_token_with_a_changed_character_is_good(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(TOKEN) - 1))
    char = data.draw(st.characters().filter(lambda char: char != TOKEN[place]))

    refusal_of(TOKEN[:place] + char + TOKEN[place + 1 :])


@given(st.integers(0, len(TOKEN) - 1), st.text(min_size=1, max_size=8))
def test_no_token_with_something_cut_or_added_is_good(place: int, more: str) -> None:
    refusal_of(TOKEN[:place])
    refusal_of(TOKEN + more)
    refusal_of(more + TOKEN)


@given(st.text())
def test_no_other_text_is_a_token(text: str) -> None:
    refusal_of(text)
    refusal_of("\ud800" + text)


def test_tokens_of_another_secret_are_refused() -> None:
    token, _ = Tokens(b"another secret of thirty-two bytes", TTL).issue(77, "s", 0, now=NOW)

    assert "not signed by this server" in refusal_of(token)


@pytest.mark.parametrize("algorithm", ["none", "HS512", "HS384"])
def test_no_other_algorithm_is_accepted(algorithm: str) -> None:
    key = None if algorithm == "none" else SECRET * 2

    assert "not a session token" in refusal_of(jwt.encode(GOOD, key, algorithm))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "else"},
        {"typ": "refresh"},
        {"sub": "me"},
        {"sub": 77},
        {"gen": "0"},
        {"exp": None},
        {"sid": 5},
    ],
)
def test_other_claims_under_the_same_secret_are_no_session(change: dict[str, object]) -> None:
    assert TOKENS.verify(jwt.encode(GOOD, SECRET, "HS256"), NOW).user == 77

    refusal_of(jwt.encode(GOOD | change, SECRET, "HS256"))


def test_a_token_too_long_to_be_ours_is_refused_unread() -> None:
    token, _ = TOKENS.issue(77, "s" * 1_000, 0, now=NOW)

    assert "not a session token" in refusal_of(token)


def test_verifying_is_cheap_enough_for_every_connect() -> None:
    """The target is 20 µs; the bound leaves room for a busy machine."""
    runs = 200
    best = min(timeit.repeat(lambda: TOKENS.verify(TOKEN, NOW), number=runs, repeat=10)) / runs

    assert best < 60e-6


def test_refresh_tokens_are_unguessable_and_stored_as_hashes() -> None:
    made = {new_refresh() for _ in range(100)}

    assert len(made) == 100
    assert all(len(token) >= 43 for token in made)
    assert len({hash_refresh(token) for token in made}) == 100
    assert hash_refresh("pr_x") == hash_refresh("pr_x")
    assert len(hash_refresh("\ud800")) == 32


def test_session_ids_do_not_repeat() -> None:
    assert len({new_session_id() for _ in range(1_000)}) == 1_000
