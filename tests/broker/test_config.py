"""Settings: what there is, which source wins, and that nothing wrong passes unseen."""

import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config import DEFAULTS, HINTS, Config, describe, get, shown
from broker.config_sources import (
    OTHER_VARIABLES,
    ConfigError,
    as_toml,
    load,
    variable_of,
)


def problems_of(**sources: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(**sources)  # type: ignore[arg-type]
    return caught.value.problems


def test_without_any_source_the_defaults_hold(tmp_path: Path) -> None:
    loaded = load(flags=[("data", str(tmp_path), "--data")])

    assert msgspec.structs.replace(loaded.config, data=DEFAULTS.data) == Config()
    assert loaded.origins == {"data": "--data"}


def test_the_later_source_wins_and_is_named_as_the_origin(tmp_path: Path) -> None:
    (tmp_path / "parley.toml").write_text(
        "[http]\nport = 1001\n[tcp]\nport = 1002\nhost = '::1'\n[outbox]\nstall_ms = 7\n"
    )
    loaded = load(
        environ={
            "PARLEY_DATA": str(tmp_path),
            "PARLEY_TCP__PORT": "2002",
            "PARLEY_HTTP__PORT": "3",
        },
        flags=[("http.port", "3001", "--http")],
    )

    assert loaded.config.http.port == 3001
    assert loaded.config.tcp.port == 2002
    assert loaded.config.tcp.host == "::1"
    assert loaded.config.outbox.stall_ms == 7
    assert loaded.config.outbox.high_bytes == DEFAULTS.outbox.high_bytes
    assert loaded.origins == {
        "data": "PARLEY_DATA",
        "http.port": "--http",
        "tcp.port": "PARLEY_TCP__PORT",
        "tcp.host": f"{tmp_path}/parley.toml: tcp.host",
        "outbox.stall_ms": f"{tmp_path}/parley.toml: outbox.stall_ms",
    }


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_a_named_file_is_read_in_place_of_the_one_in_the_data_directory(
    tmp_path: Path, how: str
) -> None:
    (tmp_path / "parley.toml").write_text("[http]\nport = 1\n")
    named = tmp_path / "named.toml"
    named.write_text(f"data = '{tmp_path}'\n[tcp]\nport = 2\n")

    loaded = load(file=named) if how == "flag" else load(environ={"PARLEY_CONFIG": str(named)})

    assert loaded.config.data == tmp_path
    assert (loaded.config.http.port, loaded.config.tcp.port) == (DEFAULTS.http.port, 2)


def test_relative_paths_in_a_file_are_meant_from_where_the_file_is(tmp_path: Path) -> None:
    file = tmp_path / "parley.toml"
    file.write_text("data = 'here'\n[tls]\ncert = 'c.pem'\nkey = '/k.pem'\n")

    config = load(file=file).config

    assert config.data == tmp_path / "here"
    assert config.tls.cert == tmp_path / "c.pem"
    assert config.tls.key == Path("/k.pem")


def test_lists_are_comma_separated_in_variables() -> None:
    environ = {"PARLEY_HTTP__ALLOWED_ORIGINS": "https://a.example, https://b.example,"}

    config = load(environ=environ).config

    assert config.http.allowed_origins == ("https://a.example", "https://b.example")


def test_every_key_can_be_given_as_a_variable() -> None:
    for setting in describe():
        if setting.default is None:
            continue
        text = ",".join(setting.default) if setting.key.endswith("origins") else setting.default

        loaded = load(environ={variable_of(setting.key): str(text)})

        assert get(loaded.config, setting.key) == setting.default
        assert loaded.origins == {setting.key: variable_of(setting.key)}


def test_all_that_is_wrong_is_reported_at_once_each_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "parley.toml"
    file.write_text(
        """
        heartbeat = 3
        log = 4
        [outbx]
        [http]
        prt = 80
        port = "80"
        [outbox]
        high_bytes = true
        [log2.deep]
        [tcp]
        port = 65536
    """.replace("log = 4\n", "")
    )

    found = problems_of(
        file=file,
        environ={
            "PARLEY_OUTBOX_HIGH_BYTES": "1",
            "PARLEY_outbox__high_bytes": "1",
            "PARLEY_TCP__PORT": "many",
            "HOME": "/",
        },
        flags=[
            ("log.level", "loud", "--log-level"),
            ("tls.cert", "", "--tls-cert"),
            ("a.b", "c", "--set a.b"),
        ],
    )

    places = {line.partition(": ")[0] if line[0] != "/" else line.split(": ")[1] for line in found}
    assert places == {
        "PARLEY_OUTBOX_HIGH_BYTES",
        "PARLEY_outbox__high_bytes",
        "PARLEY_TCP__PORT",
        "--log-level",
        "--tls-cert",
        "--set a.b",
        "heartbeat",
        "outbx",
        "http.prt",
        "http.port",
        "outbox.high_bytes",
        "log2",
        "tcp.port",
    }
    assert len(found) == len(places)
    assert f"{file}: http.prt: no such setting (did you mean http.port?)" in found


@pytest.mark.parametrize(
    ("flags", "blamed"),
    [
        ({"outbox.soft_bytes": "9000000"}, {"outbox.soft_bytes", "outbox.high_bytes"}),
        ({"outbox.hard_bytes": "300000"}, {"outbox.high_bytes", "outbox.hard_bytes"}),
        ({"limits.body_bytes": "131072"}, {"limits.body_bytes", "limits.frame_bytes"}),
        ({"tokens.access_ttl_s": "2592000"}, {"tokens.access_ttl_s", "tokens.refresh_ttl_s"}),
        ({"tls.cert": "a.pem"}, {"tls.cert", "tls.key"}),
        ({"tls.key": "a.pem"}, {"tls.cert", "tls.key"}),
        ({"http.port": "7440"}, {"http.port", "tcp.port"}),
        ({"tcp.port": "7400"}, {"http.port", "tcp.port"}),
    ],
)
def test_values_that_contradict_each_other_are_refused_with_both_names(
    flags: dict[str, str], blamed: set[str]
) -> None:
    given_flags = [(key, value, f"--set {key}") for key, value in flags.items()]

    (problem,) = problems_of(flags=given_flags)

    assert all(key in problem for key in blamed)
    assert f"--set {next(iter(flags))}" in problem


CASSANDRA = {"store.url": "cassandra://a,b/parley"}
REDIS = {"redis.url": "redis://c"}
TWO = {"cluster.workers": "2"}


@pytest.mark.parametrize(
    ("flags", "blamed"),
    [
        ({"store.url": "postgres://a/b"}, "store.url"),
        ({"store.url": "parley.sqlite"}, "store.url"),
        ({"store.url": "sqlite://parley.sqlite"}, "store.url"),
        ({"store.url": "sqlite:///"}, "store.url"),
        ({"store.url": "sqlite:////a"}, "store.url"),
        ({"store.url": "sqlite:///a?b"}, "store.url"),
        (CASSANDRA, "redis.url"),
        (REDIS, "redis.url"),
        (TWO, "cluster.workers"),
        (CASSANDRA | REDIS | TWO | {"http.port": "0"}, "http.port"),
        (CASSANDRA | REDIS | TWO | {"tcp.port": "0"}, "tcp.port"),
        ({"cluster.worker_http_port": "7500"}, "http.port is its own"),
        (CASSANDRA | REDIS | TWO | {"cluster.worker_http_port": "65535"}, "would have 65536"),
        (CASSANDRA | REDIS | TWO | {"cluster.worker_http_port": "7399"}, "http.port is one of"),
        (CASSANDRA | REDIS | TWO | {"cluster.worker_http_port": "7440"}, "tcp.port is one of"),
    ],
)
def test_a_cluster_that_cannot_be_safe_is_refused(flags: dict[str, str], blamed: str) -> None:
    (problem,) = problems_of(flags=[(key, value, f"--set {key}") for key, value in flags.items()])

    assert blamed in problem
    assert "--set " in problem


OWN = TWO | {"cluster.worker_http_port": "65534"}


@pytest.mark.parametrize("more", [{}, TWO, OWN, {"http.port": "0", "tcp.port": "0"}])
def test_with_both_stores_any_number_of_workers_is_well(more: dict[str, str]) -> None:
    flags = CASSANDRA | REDIS | more

    config = load(flags=[(key, value, "--set") for key, value in flags.items()]).config

    assert config.backend == "cassandra"


def test_the_embedded_store_is_where_its_url_says(tmp_path: Path) -> None:
    assert Config(data=tmp_path).database == tmp_path / "parley.sqlite"
    config = load(flags=[("store.url", "sqlite:///var/lib/a%20b@c", "--set")]).config
    assert (config.backend, config.database) == ("sqlite", Path("/var/lib/a b@c"))
    assert shown(config, "store.url") == config.store.url, "no password is in it"


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("redis://:hunter2@h:1/0", "redis://:***@h:1/0"),
        ("rediss://u:hunt/er2@h", "rediss://u:***@h"),
        ("redis://u:hunt@er2@h,g", "redis://u:***@h,g"),
        ("redis://u@v:hunter2@h", "redis://u@v:***@h"),
        ("redis://u/v:hunter2@h", "redis://u/v:***@h"),
        ("redis:/u:hunter2@h", "redis:***@h"),
        ("u:hunter2@h", "u:***@h"),
        ("u://hunter2@h", "u:***@h"),
        ("redis://u@h:6379", "redis://u@h:6379"),
        ("redis://h/0?db=1&password=hunter2&ca=x", "redis://h/0?db=1&password=***&ca=x"),
        ("redis+sentinel://a:1,b:2/s", "redis+sentinel://a:1,b:2/s"),
        ("redis://h?password_file=/x", "redis://h?password_file=/x"),
    ],
)
def test_a_password_in_a_url_is_never_shown(given: str, seen: str) -> None:
    flags = [("redis.url", given, "--set redis.url")]

    (problem,) = problems_of(flags=flags)
    text = as_toml(load(flags=[*flags, ("store.url", "cassandra://a/b", "--set store.url")]))

    assert seen in problem
    assert f'url = "{seen}"  # --set redis.url\n' in text
    assert "er2" not in problem + text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[http\n", "not TOML"),
        (b"a = '\xff'\n", "not TOML"),
        (b"#" * (1 << 20) + b"##", "larger than"),
    ],
)
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "parley.toml"
    file.write_bytes(content)

    (problem,) = problems_of(file=file)

    assert problem.startswith(f"{file}: ")
    assert said in problem


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    assert problems_of(file=tmp_path / "none.toml") == [
        f"{tmp_path}/none.toml: No such file or directory"
    ]


def test_the_file_in_the_data_directory_cannot_move_the_data_directory(tmp_path: Path) -> None:
    (tmp_path / "parley.toml").write_text("data = 'elsewhere'\n")

    (problem,) = problems_of(flags=[("data", str(tmp_path), "--data")])

    assert "cannot name another" in problem


def test_variables_of_other_uses_are_left_alone() -> None:
    load(environ=dict.fromkeys(OTHER_VARIABLES, ""))


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
    st.lists(st.text(st.characters(exclude_characters=",", exclude_categories=["Cs", "Zs", "Cc"]))),
)
def test_what_is_shown_reads_back_as_the_same_configuration(cert: str, origins: list[str]) -> None:
    shown = load(
        flags=[
            ("tls.cert", cert, "--tls-cert"),
            ("tls.key", "/key", "--tls-key"),
            ("http.allowed_origins", ",".join(origins), "--set http.allowed_origins\n"),
            ("outbox.hard_bytes", "5000000", "--set outbox.hard_bytes"),
        ]
    )

    tree = tomllib.loads(as_toml(shown))

    assert tree["tls"]["cert"] == str(shown.config.tls.cert)
    assert tuple(tree["http"]["allowed_origins"]) == shown.config.http.allowed_origins
    assert tree["outbox"]["hard_bytes"] == 5_000_000
    assert {
        f"{table}.{name}" if isinstance(values, dict) else table
        for table, values in tree.items()
        for name in (values if isinstance(values, dict) else [""])
    } == set(HINTS)


def test_only_what_was_given_is_shown_with_an_origin() -> None:
    text = as_toml(load(environ={"PARLEY_LOG__FORMAT": "json"}))

    assert [line for line in text.splitlines() if "#" in line] == [
        "# cert is not set",
        "# key is not set",
        'format = "json"  # PARLEY_LOG__FORMAT',
    ]


def test_every_setting_has_a_type_a_default_within_its_bounds_and_a_meaning() -> None:
    settings = describe()

    assert len(settings) == len({setting.key for setting in settings}) == len(HINTS)
    for setting in settings:
        assert setting.meaning.endswith(".")
        assert setting.type
        if isinstance(setting.default, int):
            low, high = setting.type.removeprefix("integer, ").split(" to ")
            assert int(low) <= setting.default <= int(high)
