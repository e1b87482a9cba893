"""Real logs through a real broker process, proved; and replays that must fail."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result

from broker.cli.main import main
from broker.client import Ack, Client
from broker.replay.attendance import Tally
from broker.replay.host import HostFailed, own_broker, tokens
from broker.replay.parser import parse
from broker.replay.proof import ProofFailed
from broker.replay.runner import Plan, Replay
from tests.helpers.broker import Broker

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "tests" / "data" / "sample.log"
REAL_LINES = 250
"""How much of a real log is replayed by the tests; `parley replay` takes it whole."""


def real_logs(directory: Path) -> list[Path]:
    """A stretch of some of the real logs, where there are any; else the sample."""
    given = os.environ.get("PARLEY_LOGS")
    where = Path(given) if given else ROOT.parent / "shared" / "data"
    found = sorted(where.rglob("*.txt"))[::7][:3]
    for log in found:
        lines = log.read_bytes().split(b"\n")[:REAL_LINES]
        (directory / log.name).write_bytes(b"\n".join(lines))
    return [directory / log.name for log in found] or [SAMPLE]


def replay(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["replay", *map(str, arguments)])


def test_sample_through_a_broker_of_its_own(tmp_path: Path) -> None:
    result = replay(SAMPLE, "--json", tmp_path / "result.json")
    assert result.exit_code == 0, result.output
    assert "Proved" in result.output
    report = json.loads((tmp_path / "result.json").read_text())
    sample = parse("sample", SAMPLE.read_bytes())
    assert report["proved"]
    assert report["messages"] == sample.messages
    assert report["persons"] == len(sample.nicks)
    assert report["deliveries"] > report["entries"] > report["messages"]


def test_real_rooms_beside_each_other(tmp_path: Path) -> None:
    result = replay(*real_logs(tmp_path), "--window", 2)
    assert result.exit_code == 0, result.output
    assert "Proved" in result.output


@pytest.mark.parametrize("text", ["", "Some prose,\nof several lines.\n"])
def test_file_that_is_no_log_proves_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "prose.txt").write_text(text)
    result = replay(tmp_path / "prose.txt")
    assert result.exit_code == 1
    assert "not a chat log" in result.output


def test_room_too_large_for_its_connections() -> None:
    result = replay(SAMPLE, "--connections", 3)
    assert result.exit_code == 1
    assert "3 are allowed" in result.output


def test_url_needs_tokens() -> None:
    assert replay(SAMPLE, "--url", "ws://127.0.0.1:1/ws").exit_code == 2
    assert replay(SAMPLE, "--data", SAMPLE.parent).exit_code == 2


def test_too_few_tokens(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("one\ntwo\n")
    result = replay(SAMPLE, "--url", "tcp://127.0.0.1:1", "--token-file", tmp_path / "tokens")
    assert result.exit_code == 1
    assert "2 tokens" in result.output


def test_broker_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("token\n" * 50)
    result = replay(SAMPLE, "--url", "tcp://127.0.0.1:1", "--token-file", tmp_path / "tokens")
    assert result.exit_code == 1
    assert "no connection to tcp://127.0.0.1:1" in result.output


async def test_running_broker_by_its_data_or_by_tokens(tmp_path: Path) -> None:
    persons = len(parse("sample", SAMPLE.read_bytes()).nicks)
    async with own_broker() as host:
        url = ("--url", host.websocket, "--url", host.tcp)
        by_data = await trio.to_thread.run_sync(replay, SAMPLE, *url, "--data", host.data)
        assert by_data.exit_code == 0, by_data.output
        # The same users once more, now in a second room.
        names = [f"replay-0-{n}" for n in range(-1, persons)]
        (tmp_path / "tokens").write_text("\n".join(await tokens(host.data, names)))
        arguments = (SAMPLE, *url, "--token-file", tmp_path / "tokens")
        by_tokens = await trio.to_thread.run_sync(replay, *arguments)
        assert by_tokens.exit_code == 0, by_tokens.output


async def test_broker_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.replay.host._PARLEY", [sys.executable, "-m", "no.such.module"])
    with pytest.raises(BaseExceptionGroup) as caught:
        async with own_broker():
            raise AssertionError("not reached")
    assert caught.group_contains(HostFailed, match="no.such.module|No module named")


# In this process, where things can be made to go wrong


async def run(broker: Broker, *, speed: float | None = None) -> Tally:
    log = parse("sample", SAMPLE.read_bytes())
    tokens = [await broker.token(f"user{n}") for n in range(len(log.nicks) + 1)]
    tcp = broker.running.tcp
    tally = Tally()
    replay = Replay(log, tokens, Plan([f"tcp://{tcp}"], speed, lambda: None), tally)
    await replay.run()
    return tally


async def test_speed_is_kept(broker: Broker) -> None:
    log = parse("sample", SAMPLE.read_bytes())
    life_seconds = log.happenings[-1].at_ms / 1000
    tally = await run(broker, speed=life_seconds / 0.5)
    assert tally.seconds >= 0.5
    assert tally.messages == log.messages


async def test_message_of_somebody_else_fails_the_proof(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Client.send
    sent = 0

    async def send_and_gossip(self: Client, *arguments: Any, **options: Any) -> Ack:
        nonlocal sent
        sent += 1
        if sent == 10:
            await send(self, arguments[0], "not in the log")
        return await send(self, *arguments, **options)

    monkeypatch.setattr(Client, "send", send_and_gossip)
    with pytest.raises(BaseExceptionGroup) as caught:
        await run(broker)
    assert caught.group_contains(ProofFailed)
