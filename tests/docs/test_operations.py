"""docs/operations.md against the code: settings, options, routes, metrics, lines of the log."""

from __future__ import annotations

import ast
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
import trio
from starlette.routing import Route

from actors.node import Node
from api.app import application
from broker.app import services
from broker.cli.main import main
from broker.commands.revocation import Revocation
from broker.config import Config
from broker.config_sources import OTHER_VARIABLES
from broker.drain import FINISH_S
from broker.metrics import registry
from broker.security.secret import OPERATOR_FILE, SECRET_FILE
from storage.cassandra import settings as cassandra
from storage.memory import MemoryStore
from storage.redis import settings as redis
from storage.sqlite import open_sqlite
from tests.docs.blocks import renewed
from tests.docs.markdown import DOCS, block_names, code, codes, fences, table
from tests.helpers.broker import CHEAP, SECRET, config_with
from tests.test_layers import PACKAGES, modules

TEXT = (DOCS / "operations.md").read_text()


def test_the_generated_tables_are_those_of_the_code() -> None:
    assert renewed(TEXT) == TEXT, "renew with: python -m tests.docs.blocks"


def test_every_command_of_the_command_line_is_there() -> None:
    told = [name.split()[1:] for name in block_names(TEXT) if name.startswith("cli ")]
    assert told == list(leaves(main, []))
    assert {"settings", "variables", "commands"} <= set(block_names(TEXT))


def test_variables_that_are_no_settings() -> None:
    told = {code(row[0]) for row in table(TEXT, "variable, no setting")}
    assert told == OTHER_VARIABLES
    # Any other one would be refused by every command that reads the configuration.
    options = {
        option.envvar
        for path in leaves(main, [])
        for option in command_at(path).params
        if option.envvar
    }
    assert options <= OTHER_VARIABLES


def test_every_option_of_a_url_is_there() -> None:
    told = [(row[0], code(row[1])) for row in table(TEXT, "in the URL of")]
    assert sorted(told) == sorted(
        [("Cassandra", option) for option in cassandra.OPTIONS]
        + [("Redis", option) for option in redis.FILES | redis.OF_SENTINELS]
    )


def command_at(path: list[str]) -> click.Command:
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    return command


def leaves(group: click.Group, path: list[str]) -> Iterator[list[str]]:
    context = click.Context(group)
    # A table's order is kept; a plain group sorts its commands.
    names = group.list_commands(context) if group is main else list(group.commands)
    for name in names:
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from leaves(found, [*path, name])
        else:
            yield [*path, name]


def test_exit_codes() -> None:
    assert main.epilog is not None
    told = {row[0] for row in table(TEXT, "exit code", "meaning")}
    assert told == {word for word in main.epilog.replace(":", "").split() if word.isdecimal()}


async def test_every_route_is_there_and_no_other(tmp_path: Path) -> None:
    node = Node(MemoryStore())
    config = config_with(tmp_path, {})
    app = application(node, services(config, node, SECRET, Revocation(node)), b"operator")
    there = {
        f"{method} {route.path}"
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert {code(row[0]) for row in table(TEXT, "endpoint")} == there


async def test_every_metric_is_there_and_no_other() -> None:
    families = registry(Node(MemoryStore())).collect()
    there = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in families
        if not family.name.startswith("process_")
    }
    assert {code(row[0]) for row in table(TEXT, "metric")} == there


def logged() -> dict[str, str]:
    """Every line that may be logged, as its format, and its level."""
    found = {}
    for _, path in modules(*PACKAGES):
        if path.is_relative_to(DOCS.parent / "broker" / "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log" | "_log"), attr=level),
                    args=[ast.Constant(value=str(line)), *_],
                ):
                    found[line] = {"exception": "error"}.get(level, level)
    return found


def test_every_line_of_the_log_is_there_and_no_other() -> None:
    assert {code(row[0]): row[1] for row in table(TEXT, "line", "level")} == logged()


def test_what_stops_a_start_is_said_in_these_words() -> None:
    sources = "".join(path.read_text() for _, path in modules("broker", "storage"))
    for words in (code(row[0]) for row in table(TEXT, "words")):
        assert words in sources or words == "Address already in use", words


def test_the_files_of_the_data_directory() -> None:
    told = {name for row in table(TEXT, "file", "what") for name in codes(row[0])}
    assert told >= {Config().database.name, SECRET_FILE, OPERATOR_FILE}


def test_the_unit_gives_a_drain_its_time() -> None:
    unit = dict(
        line.split("=", 1) for line in "".join(fences(TEXT, "ini")).splitlines() if "=" in line
    )
    # Of a cluster: to hand over, and then to say goodbye.
    assert int(unit["TimeoutStopSec"]) > 2 * Config().connections.drain_ms / 1000 + FINISH_S
    assert int(unit["LimitNOFILE"]) > Config().connections.max


async def test_the_backup_is_a_whole_database_beside_a_running_broker(tmp_path: Path) -> None:
    assert "VACUUM INTO 'backup.sqlite'" in TEXT
    copy = tmp_path / "backup.sqlite"
    async with open_sqlite(tmp_path / "parley.sqlite", exclusive=True) as store:
        before = await store.next_group_id()
        await trio.to_thread.run_sync(partial(backup, tmp_path / "parley.sqlite", copy))
        assert await store.next_group_id() == before + 1
    async with open_sqlite(copy, exclusive=True) as restored:
        assert await restored.next_group_id() == before + 1


def backup(database: Path, copy: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute(f"VACUUM INTO '{copy}'")
    connection.close()


def test_cheap_settings_of_the_tests_are_real_ones() -> None:
    assert {f"`{key}`" for key in CHEAP} <= {row[0] for row in table(TEXT, "key", "type")}
