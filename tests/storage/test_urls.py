"""No word about a URL tells a password, however it is written, and nothing of one is overlooked."""

from __future__ import annotations

import pytest

from storage.cassandra.settings import parse_url as cassandra
from storage.redis.settings import parse_url as redis

LOGINS = [
    *("hunter2/", "/hunter2", "12/hunter2", "hun?ter2", "1?hunter2", "1?hunter2=", "1?dc=hunter2"),
    *("hun#ter2", "12#hunter2", "[hunter2]", "hunter2]", "hunter2\N{ACCOUNT OF}", "hun?ter2#1/"),
]
"""Passwords that should have been %-encoded."""


@pytest.mark.parametrize("password", LOGINS)
@pytest.mark.parametrize("user", ["ann", "an/n", "1", ""])
def test_a_login_that_is_not_encoded_is_refused_and_not_told(user: str, password: str) -> None:
    for parse, url in (
        (cassandra, f"cassandra://{user}:{password}@a/chat"),
        (cassandra, f"cassandra:/{user}:{password}@a/chat"),
        (redis, f"redis://{user}:{password}@a"),
        (redis, f"redis+sentinel://{user}:{password}@a,b/chat"),
        (redis, f"redis:/{user}:{password}@a"),
    ):
        with pytest.raises(ValueError, match=r".") as refused:
            parse(url)
        assert "hun" not in str(refused.value)
        assert "ter2" not in str(refused.value)
        assert refused.value.__cause__ is None
        assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize("url", ["rediss://a?ca=/c#a&cert=/b", "redis://a#", "redis://a/#1"])
def test_what_stands_after_a_number_sign_is_not_overlooked(url: str) -> None:
    with pytest.raises(ValueError, match="%23"):
        redis(url)


def test_what_is_encoded_is_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    odd = tmp_path_factory.mktemp("o") / "p@s#s"
    odd.write_text("hunter2")
    name = str(odd).replace("@", "%40").replace("#", "%23")
    assert cassandra(f"cassandra://me@a/chat?password_file={name}").password == "hunter2"
    assert redis(f"redis://a?password_file={name}").login.password == "hunter2"
    assert cassandra("cassandra://me:%2F%3F%23%40@a/chat").password == "/?#@"
    assert redis("redis://:%2F%3F%23%40@a").login.password == "/?#@"
