"""The log: one line a record whoever chose its words, and no secret in any of them."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config import Log
from broker.logs import HumanLines, JsonLines, configure, redact
from broker.security.tokens import Tokens, new_refresh
from broker.wire.commands import Login

TOKEN, _ = Tokens(b"0" * 32, 60).issue(1, "s", 0)
HASH = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$bm9ib2R5IGhhcyB0aGlzIHBhc3N3b3Jk"
PASSWORD = "hunter2 \\\"'and more"


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Leave the process's log as it was."""
    root = logging.getLogger()
    before = (root.level, root.handlers[:])
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    logger = logging.getLogger("broker.test")
    return logger.makeRecord(
        "broker.test", logging.INFO, "", 0, message, arguments, None, extra=extra
    )


def test_a_line_for_people_has_time_level_logger_message_and_extras() -> None:
    line = HumanLines().format(record("listening on %s", "127.0.0.1", port=7400))

    time, rest = line.split(" ", 1)
    assert time.endswith("Z")
    assert rest == "INFO    broker.test: listening on 127.0.0.1 port=7400"


def test_a_json_line_has_the_same_as_fields() -> None:
    fields = json.loads(JsonLines().format(record("on %s", "lo", port=7400, ratio=0.5, whom=None)))

    assert fields.pop("time").endswith("Z")
    assert fields == {
        "level": "info",
        "logger": "broker.test",
        "message": "on lo",
        "port": 7400,
        "ratio": 0.5,
        "whom": None,
    }


@pytest.mark.parametrize(("form", "lines"), [("human", HumanLines()), ("json", JsonLines())])
@given(text=st.text())
def test_nobody_can_write_a_second_line(form: str, lines: logging.Formatter, text: str) -> None:
    line = lines.format(record("from %s", text, name_of=text, big=1 << 70))

    assert len(line.splitlines()) == 1 or form == "json"
    assert "\n" not in line
    assert "\r" not in line
    line.encode()


def test_the_lines_of_a_traceback_are_indented_and_hold_no_control_character() -> None:
    stream = io.StringIO()
    configure(Log(), stream)

    try:
        raise ValueError("bad\n2026-01-01T00:00:00.000Z INFO    forged: line\x1b[2J")
    except ValueError:
        logging.getLogger("broker.test").exception("failed")

    first, *trace = stream.getvalue().splitlines()
    assert first.endswith("broker.test: failed")
    assert trace
    assert all(line.startswith("  ") for line in trace)
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("lines", [HumanLines(), JsonLines()])
@pytest.mark.parametrize("secret", [TOKEN, HASH, new_refresh()])
def test_tokens_and_hashes_are_blotted_out_wherever_they_are(
    lines: logging.Formatter, secret: str
) -> None:
    line = lines.format(record(f"got {secret}, %s", {"deep": [secret]}, header=f"Bearer {secret}"))

    assert secret not in line
    assert secret[10:40] not in line
    assert "[redacted]" in line


@pytest.mark.parametrize("lines", [HumanLines(), JsonLines()])
@pytest.mark.parametrize(
    "what",
    [
        {"password": PASSWORD},
        {"name": "alice", "password": PASSWORD, "id": 1},
        Login(id=1, name="alice", password=PASSWORD),
        json.dumps({"password": PASSWORD}),
        "password=hunter2",
        b'{"t":"login","password":"hunter2"}',
    ],
)
def test_passwords_are_blotted_out_of_what_is_known_to_hold_them(
    lines: logging.Formatter, what: object
) -> None:
    assert "hunter2" not in lines.format(record("bad command %s", what))
    assert "hunter2" not in lines.format(record("bad command", command=what))


@pytest.mark.parametrize("lines", [HumanLines(), JsonLines()])
def test_an_extra_with_a_secret_name_is_never_written(lines: logging.Formatter) -> None:
    line = lines.format(record("who", password="hunter2", refresh_token="x y z"))

    assert "hunter2" not in line
    assert "x y z" not in line
    assert "[redacted]]" not in line


def test_other_words_stay() -> None:
    line = "user 7 joined g/12 (tokenizer, 3 of 5), eyJ, path=/passwords"

    assert redact(line) == line


def test_the_level_decides_what_is_written() -> None:
    stream = io.StringIO()
    configure(Log(level="warning", format="json"), stream)

    logging.getLogger("broker.a").info("quiet")
    logging.getLogger("hypercorn.error").warning("loud")

    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["message"] == "loud"
