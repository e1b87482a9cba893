"""`parley token`: a token a line, in order, for those who are there or may be made."""

import time
from pathlib import Path

import pytest
import trio

from broker.config import DATABASE_FILE, Config
from broker.security.secret import SECRET_FILE, load_secret
from broker.security.tokens import Claims, Tokens, now_ms
from storage.records import User
from storage.sqlite import open_sqlite
from tests.broker.cli.conftest import Parley

DAY_MS = 86_400_000


def claims_of(data: Path, output: str) -> list[Claims]:
    tokens = Tokens(load_secret(data, create=False), 1)
    return [tokens.verify(line, now_ms()) for line in output.splitlines()]


def names_of(data: Path, claims: list[Claims]) -> list[str]:
    async def look() -> dict[int, User]:
        async with open_sqlite(Config(data=data).database) as store:
            return await store.users([each.user for each in claims])

    users = trio.run(look)
    return [users[each.user].name for each in claims]


def test_it_prints_a_token_a_line_in_the_order_of_the_names(parley: Parley, tmp_path: Path) -> None:
    result = parley("token", "--data", tmp_path, "--create", "zoë", "Ann", "bob", "ann")

    assert result.exit_code == 0
    claims = claims_of(tmp_path, result.stdout)
    assert names_of(tmp_path, claims) == ["zoë", "Ann", "bob", "Ann"]
    assert len({each.session for each in claims}) == 4
    assert all(abs(each.expires - now_ms() - DAY_MS) < 60_000 for each in claims)


def test_names_may_come_from_standard_input(parley: Parley, tmp_path: Path) -> None:
    arguments = ("token", "--data", tmp_path, "--create", "first", "-", "last")

    result = parley(*arguments, stdin="näme one\ntwo\n".encode())

    claims = claims_of(tmp_path, result.stdout)
    assert names_of(tmp_path, claims) == ["first", "näme one", "two", "last"]


def test_missing_users_are_named_and_nothing_is_printed(parley: Parley, tmp_path: Path) -> None:
    parley("token", "--data", tmp_path, "--create", "ann")

    result = parley("token", "--data", tmp_path, "ann", "nobody")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "'nobody'" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_without_create_a_wrong_directory_is_not_made(parley: Parley, tmp_path: Path) -> None:
    result = parley("token", "--data", tmp_path / "tpyo", "ann")

    assert result.exit_code == 1
    assert "does not exist" in result.stderr
    assert not (tmp_path / "tpyo").exists()


@pytest.mark.parametrize("name", ["", " ann", "a\nb", "a\x00b", "x" * 65, "a\u200bb"])
def test_names_that_nobody_could_type_are_not_made(
    parley: Parley, tmp_path: Path, name: str
) -> None:
    result = parley("token", "--data", tmp_path, "--create", "ann", name)

    assert (result.exit_code, result.stdout) == (1, "")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("ttl", ["0", "1w", "-5", "", "99999999d"])
def test_a_life_that_is_none_is_wrong_usage(parley: Parley, tmp_path: Path, ttl: str) -> None:
    assert parley("token", "--data", tmp_path, "--ttl", ttl, "ann").exit_code == 2


def test_the_life_can_be_chosen(parley: Parley, tmp_path: Path) -> None:
    output = parley("token", "--data", tmp_path, "--create", "--ttl", "2m", "ann").stdout

    (claims,) = claims_of(tmp_path, output)
    assert claims.expires - claims.issued == 120_000


def test_an_open_secret_is_refused_in_a_line(parley: Parley, tmp_path: Path) -> None:
    parley("token", "--data", tmp_path, "--create", "ann")
    (tmp_path / SECRET_FILE).chmod(0o644)

    result = parley("token", "--data", tmp_path, "ann")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "chmod 600" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_database_that_is_none_is_refused_without_a_traceback(
    parley: Parley, tmp_path: Path
) -> None:
    (tmp_path / DATABASE_FILE).write_bytes(b"this is no database" * 1_000)

    result = parley("token", "--data", tmp_path, "--create", "ann")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "Traceback" not in result.stderr


async def test_it_works_beside_a_running_broker(parley: Parley, tmp_path: Path) -> None:
    async with open_sqlite(Config(data=tmp_path).database, exclusive=True) as store:
        result = await trio.to_thread.run_sync(
            lambda: parley("token", "--data", tmp_path, "--create", "ann")
        )

        (claims,) = claims_of(tmp_path, result.stdout)
        assert (await store.users([claims.user]))[claims.user].name == "ann"


def test_thousands_at_once_take_seconds(parley: Parley, tmp_path: Path) -> None:
    names = "".join(f"user{number}\n" for number in range(2_000))

    began = time.monotonic()
    first = parley("token", "--data", tmp_path, "--create", "-", stdin=names)
    second = parley("token", "--data", tmp_path, "-", stdin=names)
    elapsed = time.monotonic() - began

    users = [each.user for each in claims_of(tmp_path, first.stdout)]
    assert len(set(users)) == 2_000
    assert [each.user for each in claims_of(tmp_path, second.stdout)] == users
    assert elapsed < 5
