"""The group of commands: help for people, codes for scripts, and a fast start."""

import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest

from broker.cli.failures import only_leaf
from broker.cli.main import COMMANDS, LazyGroup, _expected
from broker.config_sources import ConfigError
from broker.wire.errors import Code, Refusal
from storage.errors import Unavailable, UnsafeSettings
from tests.broker.cli.conftest import Parley


def test_help_lists_every_command_without_importing_any() -> None:
    script = (
        "import sys, contextlib\n"
        "from broker.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "heavy = ['trio', 'rich', 'prompt_toolkit', 'starlette', 'hypercorn', 'jwt', 'argon2']\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    ).stdout

    assert output.splitlines()[-1] == "[]"
    assert all(f"\n  {name} " in output for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_of_itself_what_the_list_says(name: str) -> None:
    module, line = COMMANDS[name]

    command = importlib.import_module(module).command

    assert isinstance(command, click.Command)
    assert command.get_short_help_str(100) == line
    assert command.name == name


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["serve", "--nonsense"], ["config", "show", "x"]]
)
def test_wrong_usage_ends_with_2(parley: Parley, arguments: list[str]) -> None:
    result = parley(*arguments)

    assert result.exit_code == 2
    assert "Usage:" in result.stderr


def test_a_wrong_configuration_ends_with_2_and_names_every_place(
    parley: Parley, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "parley.toml").write_text("[http]\nprt = 1\n")
    monkeypatch.setenv("PARLEY_TCP__PORT", "many")

    result = parley("serve", "--data", tmp_path, "--log-level", "loud", "--set", "a.b=c")

    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    file = f"{tmp_path}/parley.toml: http.prt"
    for place in (file, "PARLEY_TCP__PORT", "--log-level", "--set a.b"):
        assert f"\n  {place}: " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--http", "7400"], "not HOST:PORT"),
        (["--http", "::1:7400"], "brackets"),
        (["--tcp", "localhost:http"], "--tcp: Expected `int`"),
        (["--set", "novalue"], "not KEY=VALUE"),
    ],
)
def test_bad_flags_of_serve_are_refused(parley: Parley, arguments: list[str], said: str) -> None:
    result = parley("serve", *arguments)

    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError(["a: b", "c: d"]), 2, "\n  a: b\n  c: d"),
        (Unavailable("the disk is full"), 1, "the disk is full"),
        (UnsafeSettings("consistency=ONE"), 2, "consistency=ONE"),
        (Refusal(Code.CONFLICT, "taken"), 1, "taken"),
        (OSError(98, "Address already in use"), 1, "Address already in use"),
        (PermissionError(13, "Permission denied", "/x"), 1, "/x: Permission denied"),
    ],
)
def test_an_expected_failure_becomes_a_line_and_a_code_however_deep_in_nurseries(
    error: Exception, code: int, said: str
) -> None:
    nested = ExceptionGroup("outer", [ExceptionGroup("inner", [error])])

    failure = _expected(only_leaf(nested))

    assert isinstance(failure, click.ClickException)
    assert failure.exit_code == code
    assert said in failure.message


@pytest.mark.parametrize("error", [KeyError("defect"), BrokenPipeError(32, "Broken pipe")])
def test_a_defect_stays_what_it_is(error: Exception) -> None:
    assert _expected(error) is error

    two = ExceptionGroup("two", [error, ValueError()])
    assert only_leaf(two) is two


def test_two_failures_at_once_are_no_single_line() -> None:
    group = ExceptionGroup("two", [Unavailable("a"), Unavailable("b")])

    @click.command("two")
    def two() -> None:
        raise group

    class Both(LazyGroup):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
            return two

    with pytest.raises(ExceptionGroup):
        Both("both").main(["two"], standalone_mode=False)


def test_version(parley: Parley) -> None:
    assert parley("--version").output.startswith("parley, version ")


def test_it_can_be_run_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "broker.cli", "nonsense"], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 2
    assert "Usage: parley " in done.stderr
