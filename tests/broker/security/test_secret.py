"""The signing secret: made once, whole, for its owner alone; refused if others may know it."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from broker.security.secret import SECRET_BYTES, SECRET_FILE, SecretError, load_secret


def test_the_first_start_makes_a_secret_that_later_ones_find(tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"

    secret = load_secret(data)

    assert len(secret) >= SECRET_BYTES
    assert load_secret(data) == secret
    assert os.listdir(data) == [SECRET_FILE]
    assert stat.S_IMODE((data / SECRET_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


def test_its_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        load_secret(tmp_path)
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / SECRET_FILE).stat().st_mode) == 0o600


def test_two_directories_have_different_secrets(tmp_path: Path) -> None:
    assert load_secret(tmp_path / "a") != load_secret(tmp_path / "b")


def test_processes_that_start_at_the_same_time_agree_on_one_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda _: load_secret(tmp_path), range(64)))

    assert len(found) == 1
    assert os.listdir(tmp_path) == [SECRET_FILE]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o644])
def test_a_secret_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    load_secret(tmp_path)
    (tmp_path / SECRET_FILE).chmod(mode)

    with pytest.raises(SecretError, match=f"mode {mode:o}.*chmod 600"):
        load_secret(tmp_path)


@pytest.mark.parametrize("content", [b"", b"short\n", b"x" * (SECRET_BYTES - 1), b" " * 99])
def test_a_secret_that_is_too_short_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / SECRET_FILE
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(SecretError, match="must hold"):
        load_secret(tmp_path)
    assert path.read_bytes() == content


def test_a_secret_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / SECRET_FILE, 0o600)

    with pytest.raises(SecretError, match="not a file"):
        load_secret(tmp_path)


def test_one_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(SecretError, match="file"):
        load_secret(tmp_path / "file" / "data")


def test_a_directory_without_a_secret_is_only_given_one_when_asked(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="does not exist"):
        load_secret(tmp_path, create=False)
    assert os.listdir(tmp_path) == []


def test_the_message_never_holds_the_secret(tmp_path: Path) -> None:
    secret = load_secret(tmp_path)
    (tmp_path / SECRET_FILE).chmod(0o644)

    with pytest.raises(SecretError) as caught:
        load_secret(tmp_path)
    assert secret.decode() not in str(caught.value)
