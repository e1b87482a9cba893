"""`parley user`: accounts made and changed from the data directory."""

from pathlib import Path

import pytest
import trio

from broker.config import Config, Passwords
from broker.security.passwords import Passwords as Hasher
from storage.records import User
from storage.sqlite import open_sqlite
from tests.broker.cli.conftest import Parley

PASSWORD = "correct horse"


def account(data: Path, name: str) -> tuple[User, str | None]:
    """The user and the password's hash, as the store has them."""

    async def look() -> tuple[User, str | None]:
        async with open_sqlite(Config(data=data).database) as store:
            user = (await store.users_by_name([name]))[name]
            return user, await store.password_hash(user.id)

    return trio.run(look)


def password_is(data: Path, name: str, password: str) -> bool:
    _, stored = account(data, name)
    hasher = Hasher(Passwords(memory_kib=64, passes=1))
    return trio.run(hasher.verify, password, stored).good


def test_a_user_is_added_with_a_password_from_standard_input(
    parley: Parley, tmp_path: Path
) -> None:
    result = parley("user", "add", "--data", tmp_path, "--password-stdin", "ann", stdin=PASSWORD)

    assert result.exit_code == 0
    assert result.output == "added ann with id 1\n"
    assert password_is(tmp_path, "ann", PASSWORD)


def test_or_with_one_that_is_asked_for_twice_and_not_shown(parley: Parley, tmp_path: Path) -> None:
    typed = f"{PASSWORD}\nwrong\n{PASSWORD}\n{PASSWORD}\n"

    result = parley("user", "add", "--data", tmp_path, "ann", stdin=typed)

    assert result.exit_code == 0
    assert PASSWORD not in result.output
    assert password_is(tmp_path, "ann", PASSWORD)


@pytest.mark.parametrize(
    ("name", "password", "said"),
    [("ANN", PASSWORD, "is taken"), ("bob", "short", "8 to 256"), (" bob", PASSWORD, "spaces")],
)
def test_what_cannot_be_is_refused_in_a_line(
    parley: Parley, tmp_path: Path, name: str, password: str, said: str
) -> None:
    parley("user", "add", "--data", tmp_path, "--password-stdin", "ann", stdin=PASSWORD)

    result = parley("user", "add", "--data", tmp_path, "--password-stdin", name, stdin=password)

    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_new_password_ends_the_old_one_and_all_sessions(parley: Parley, tmp_path: Path) -> None:
    parley("user", "add", "--data", tmp_path, "--password-stdin", "ann", stdin=PASSWORD)

    result = parley(
        "user", "passwd", "--data", tmp_path, "--password-stdin", "ann", stdin="other one"
    )

    assert result.exit_code == 0
    assert password_is(tmp_path, "ann", "other one")
    assert not password_is(tmp_path, "ann", PASSWORD)
    assert account(tmp_path, "ann")[0].generation == 1


def test_no_password_can_be_set_for_nobody(parley: Parley, tmp_path: Path) -> None:
    parley("token", "--data", tmp_path, "--create", "ann")

    result = parley("user", "passwd", "--data", tmp_path, "--password-stdin", "bob", stdin=PASSWORD)

    assert result.exit_code == 1
    assert "no such user" in result.stderr


def test_the_list_has_a_line_for_each_user_by_id(parley: Parley, tmp_path: Path) -> None:
    names = "".join(f"user{number}\n" for number in range(1_001))
    parley("token", "--data", tmp_path, "--create", "-", stdin=names)

    lines = parley("user", "list", "--data", tmp_path).stdout.splitlines()

    assert [line.split("\t")[1] for line in lines] == names.split()
    number, _, nickname, made, seen, state = lines[-1].split("\t")
    assert (number, nickname, seen, state) == ("1001", "", "-", "active")
    assert made.endswith("Z")
