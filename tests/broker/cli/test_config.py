"""`parley config show`: the effective settings, their origins, and no secret."""

import tomllib
from pathlib import Path

from broker.security.secret import load_secret
from tests.broker.cli.conftest import Parley


def test_it_shows_what_serve_would_use_and_where_it_came_from(
    parley: Parley, tmp_path: Path
) -> None:
    (tmp_path / "parley.toml").write_text("[http]\nport = 8000\n")

    result = parley("config", "show", "--data", tmp_path, "--set", "log.format=json")

    assert result.exit_code == 0
    assert f"port = 8000  # {tmp_path}/parley.toml: http.port\n" in result.output
    assert 'format = "json"  # --set log.format\n' in result.output
    assert tomllib.loads(result.output)["passwords"]["memory_kib"] == 64


def test_it_never_shows_the_secret(parley: Parley, tmp_path: Path) -> None:
    secret = load_secret(tmp_path).decode()

    assert secret not in parley("config", "show", "--data", tmp_path).output


def test_what_it_shows_is_a_configuration_again(parley: Parley, tmp_path: Path) -> None:
    first = parley("config", "show", "--data", tmp_path, "--set", "outbox.stall_ms=5").output
    file = tmp_path / "again.toml"
    file.write_text(first)

    again = parley("config", "show", "--config", file).output

    assert tomllib.loads(again) == tomllib.loads(first)
