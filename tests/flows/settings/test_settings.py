"""Settings: layers, origins, and the messages about mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from connectors.config import Endpoint
from flows.settings.model import Loaded, Settings, load
from flows.settings.schema import dotted, plain, setting_at, settings_of, show, values_of
from operators.detect import registry
from operators.errors import ConfigError
from operators.section import MASK


def problems(environ: dict[str, str], cwd: Path, **overrides: tuple[object, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(environ, cwd, overrides)
    # A traceback with the original error would show the values that the message masks.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return str(caught.value)


def write(folder: Path, text: str, name: str = "sentinel.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_nothing_configured_is_the_embedded_run(tmp_path: Path) -> None:
    loaded = load({}, tmp_path)
    assert loaded.settings == Settings()
    assert loaded.settings.source.kind == "simulator"
    assert loaded.settings.store.kind == "sqlite"
    assert loaded.settings.metrics.host == "127.0.0.1"
    assert {origin.layer for origin in loaded.provenance.values()} == {"default"}


def test_later_layers_win_and_each_value_knows_its_origin(tmp_path: Path) -> None:
    path = write(tmp_path, "[time]\npane_s = 20\nlateness_s = 4\nidle_s = 5\n")
    environ = {"SENTINEL_TIME__LATENESS_S": "6", "SENTINEL_TIME__IDLE_S": "7"}
    loaded = load(environ, tmp_path, {"time.idle_s": (8.0, "--idle")})
    assert (loaded.settings.time.pane_s, loaded.settings.time.lateness_s, loaded.settings.time.idle_s) == (20, 6, 8)
    assert str(loaded.origin("time.pane_s")) == f"{path}, line 2"
    assert str(loaded.origin("time.lateness_s")) == "environment variable SENTINEL_TIME__LATENESS_S"
    assert str(loaded.origin("time.idle_s")) == "--idle"
    assert str(loaded.origin("time.max_ahead_s")) == "the default"


def test_the_file_named_by_the_environment_is_read_instead(tmp_path: Path) -> None:
    write(tmp_path, "[time]\npane_s = 20\n")
    write(tmp_path, "[time]\npane_s = 30\n", "other.toml")
    assert load({"SENTINEL_CONFIG": "other.toml"}, tmp_path).settings.time.pane_s == 30
    assert load({"SENTINEL_CONFIG": ""}, tmp_path).settings.time.pane_s == 20


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    assert f"SENTINEL_CONFIG names {tmp_path / 'gone.toml'}" in problems({"SENTINEL_CONFIG": "gone.toml"}, tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[time]\npane_s = = 3\n", "is not TOML: Invalid value (at line 2, column 10)"),
        (b"[time]\npane_s = 1\npane_s = 2\n", "is not TOML: Cannot overwrite a value (at line 3"),
        (b"[time]\n# \xff\n", "is not UTF-8 (byte 9)"),
    ],
)
def test_a_broken_file_is_named_with_the_place(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "sentinel.toml").write_bytes(content)
    assert f"{tmp_path / 'sentinel.toml'} {said}" in problems({}, tmp_path)


def test_all_problems_of_all_layers_are_named_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, '[time]\npan_s = 3\n\n[store]\nkind = "mysql"\n')
    said = problems({"SENTINEL_METRICS__PORT": "http"}, tmp_path, **{"log.level": ("loud", "--log")})
    assert said.startswith("The settings have 4 problems:")
    assert f"time.pan_s: unknown setting\n      set by {path}, line 2\n      did you mean time.pane_s?" in said
    assert f"store.kind: should be 'sqlite', 'greptime' or 'none'\n      set by {path}, line 5" in said
    assert 'takes: one of "sqlite", "greptime", "none".' in said
    assert "metrics.port: should be a valid integer\n      set by environment variable SENTINEL_METRICS__PORT" in said
    assert "takes: integer, at least 0, at most 65535." in said
    assert "log.level: should be 'debug'" in said
    assert "set by --log" in said


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('[time]\npane_s = "10"', "should be a valid integer"),
        ("[time]\npane_s = true", "should be a valid integer"),
        ("[time]\nlateness_s = nan", "time.lateness_s = nan: must be finite"),
        ("[time]\nlateness_s = -1", "should be greater than or equal to 0"),
        ("time = 3", "time: must be a table"),
        ("[store]\ngreptime = 3", "store.greptime: must be a table"),
        ("[source]\nfiles = 3", "source.files: must be a table"),
        ("[source.files]\npaths = []", "source.files.paths: Tuple should have at least 1 item"),
        ('[source]\nkind = "files"', 'kind = "files" needs source.files.paths'),
        ('[source]\nformat = "otlp"', "source.format: must be one of auto, earlier,"),
        ('[source]\nformat = "mapped"', 'the format "mapped" needs source.mapping'),
        ('[source.topics.spans]\nformat = "otlp"', "source.topics.spans.format: must be one of auto,"),
        ('[source]\nkind = "kafka"\n[source.topics.spans]\nformat = "native"', "spans: is not in kafka.topics"),
        ('[decode.attributes]\npromt = ["x"]', "decode.attributes.promt: no attribute tells this field"),
        ('[panes]\ndimension_sets = [["planet"]]', "each set names one or more different dimensions"),
        ("[tim]\npane_s = 3", "did you mean time?"),
        ("[kafka]\nwhatever_else = 3", "[kafka] has: brokers, topics,"),
        ("[kafka]\nstart = 2024-01-01T00:00:00", "should have timezone info"),
        ('[kafka.options]\n"group.id" = "x"', "group.id cannot be set here: set kafka.group_id"),
        ('[kafka.options]\nsecurity.protocol = "SSL"', "kafka.options"),
        ("[detect.metrics.latency]\nmin_chang = 3", "did you mean detect.metrics.latency.min_change?"),
        ('[detect]\npreset = "loud"', "should be 'quiet', 'balanced' or 'sensitive'"),
        ("[detect.votes.latency]\nweigths = {}", "did you mean detect.votes.latency.weights?"),
        (
            '[detect]\ndetectors.latency = ["zscore", "mad"]\nvotes.latency.weights.cusum = 0.5',
            "cusum has no vote on latency; zscore, mad have",
        ),
        (
            '[detect.detectors]\nlatency = ["zscore", "zscor"]',
            "detect.detectors.latency: there is no detector zscor; ",
        ),
        (
            '[detect.detectors]\ncost = ["traffic"]',
            f"takes: table of list of one of {', '.join(map(json.dumps, registry.choices()))}. Detectors by metric",
        ),
        ('[detect.detectors]\ncost = ["static_limits"]', "detect.detectors.cost: static_limits cannot judge cost"),
        ('[detect.detectors]\ncost = "zscore"', "detect.detectors.cost: should be a list"),
        ('[detect.detectors]\ncots = ["zscore"]', "no such metric: cots; there are latency,"),
        ("[[detect.overrides]]\nmute = true", "entry 1, series: must be set"),
        ('[[detect.overrides]]\nseries = "*"\nmutd = true', "entry 1, mutd: unknown setting, did you mean mute?"),
        (
            '[[detect.overrides]]\nseries = "*"\nignore = ["cots"]',
            "entry 1, ignore: names a metric that is not watched; latency, ttft,",
        ),
        (
            '[[detect.limits]]\nmetric = "latency"\nabove = 5\n[[detect.limits]]\nmetrc = "latency"\nabove = 5',
            "entry 2, metrc: unknown setting, did you mean metric?",
        ),
        ("[detect.metrics.latency]\nmin_change = -3", "detect.metrics.latency.min_change = -3"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, toml: str, said: str) -> None:
    path = write(tmp_path, toml + "\n")
    message = problems({}, tmp_path)
    assert said in message
    assert f"set by {path}, line " in message


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SENTINEL_TIME__PANE", "1", "did you mean time.pane_s?"),
        ("SENTINEL_TIME_PANE_S", "1", "did you mean SENTINEL_TIME__PANE_S?"),
        ("SENTINEL_time__pane_s", "1", "did you mean SENTINEL_TIME__PANE_S?"),
        ("SENTINEL_NOTHING__LIKE_IT", "1", "unknown setting"),
        (
            "SENTINEL_TIME",
            "{",
            'must be JSON, such as {"a": "b"}; Expecting property name enclosed in double quotes (line 1, column 2)',
        ),
        ("SENTINEL_TIME", "3", "time: must be a table"),
        ("SENTINEL_KAFKA__TOPICS", "a,b", 'must be JSON, such as ["a", "b"]; Expecting value (line 1, column 1)'),
        ("SENTINEL_ALERTS__KAFKA", "maybe", "should be a valid boolean"),
        ("SENTINEL_TIME__PANE_S", "", "should be a valid integer"),
        ("SENTINEL_TIME__PANE_S__X", "1", "time.pane_s"),
        ("SENTINEL_SOURCE__FILES", "{}", None),
    ],
)
def test_mistakes_in_the_environment(tmp_path: Path, name: str, value: str, said: str | None) -> None:
    if said is None:
        assert load({name: value}, tmp_path).settings == Settings()
        return
    message = problems({name: value}, tmp_path)
    assert said in message
    assert f"set by environment variable {name}" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SENTINEL_API_SERVICE_HOST", "10.0.0.1"),
        ("SENTINEL_STORE_SERVICE_PORT_GRPC", "4001"),
        ("SENTINEL_STORE_PORT_4001_TCP_ADDR", "10.0.0.1"),
        ("SENTINEL_METRICS_PORT", "tcp://10.0.0.1:9464"),
        ("LLMS_TEST_STRICT", "1"),
        ("PATH", "/bin"),
    ],
)
def test_foreign_variables_are_passed_over(tmp_path: Path, name: str, value: str) -> None:
    assert load({name: value}, tmp_path).settings == Settings()


def test_forms_of_values_in_the_environment(tmp_path: Path) -> None:
    environ = {
        "SENTINEL_TIME__PANE_S": "60",
        "SENTINEL_TIME__LATENESS_S": "2.5",
        "SENTINEL_ALERTS__KAFKA": "yes",
        "SENTINEL_ALERTS__TERMINAL": "0",
        "SENTINEL_ALERTS__JSONL": "",
        "SENTINEL_KAFKA__TOPICS": '["a", "b"]',
        "SENTINEL_KAFKA__START": "2026-01-01T00:00:00Z",
        "SENTINEL_SOURCE__FILES__PATHS": '["x.jsonl"]',
        "SENTINEL_DETECT__METRICS__TTFT__MIN_COUNT": "7",
        "SENTINEL_DECODE": '{"max_string": 100}',
    }
    settings = load(environ, tmp_path).settings
    assert (settings.time.pane_s, settings.time.lateness_s) == (60, 2.5)
    assert (settings.alerts.kafka, settings.alerts.terminal, settings.alerts.jsonl) == (True, False, None)
    assert settings.kafka.topics == ("a", "b")
    assert not isinstance(settings.kafka.start, str)
    assert settings.kafka.start.year == 2026
    assert settings.source.files is not None
    assert settings.source.files.paths == (Path("x.jsonl"),)
    assert settings.detect.metrics["ttft"].min_count == 7
    assert settings.decode.max_string == 100


def test_tables_with_free_keys_are_merged_by_key(tmp_path: Path) -> None:
    path = write(tmp_path, '[kafka.options]\n"security.protocol" = "SASL_SSL"\n"sasl.username" = "file"\n')
    environ = {"SENTINEL_KAFKA__OPTIONS": '{"sasl.username": "me", "sasl.password": "hunter2"}'}
    loaded = load(environ, tmp_path)
    assert (
        loaded.settings.kafka.consumer().items()
        >= {
            "security.protocol": "SASL_SSL",
            "sasl.username": "me",
            "sasl.password": "hunter2",
        }.items()
    )
    assert str(loaded.origin('kafka.options."security.protocol"')) == f"{path}, line 2"
    assert loaded.origin('kafka.options."sasl.username"').layer == "environment"


def test_times_in_toml(tmp_path: Path) -> None:
    write(tmp_path, "[source.simulator]\nstart = 2026-02-03T04:05:00Z\n")
    assert load({}, tmp_path).settings.source.simulator.start.isoformat() == "2026-02-03T04:05:00+00:00"


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    write(
        tmp_path,
        '[kafka.options]\n"sasl.password" = "hunter2"\n"group.id" = "x"\n[store.greptime]\npassword = "hunter3"\n',
    )
    environ = {"SENTINEL_KAFKA__PRODUCER_OPTIONS": '{"ssl.key.password": ["hunter4"]}'}
    message = problems(environ, tmp_path)
    assert "username and password go together" in message
    assert "hunter" not in message
    good = load({"SENTINEL_STORE__GREPTIME": '{"username": "me", "password": "hunter5"}'}, tmp_path / "nowhere")
    assert "hunter" not in repr(good) + " ".join(show(setting_at(Settings, k), v) for k, v in values_of(good.settings))


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        (
            "kafka.options",
            {"sasl.password": SecretStr("x"), "debug": "all"},
            '{"sasl.password" = **********, debug = "all"}',
        ),
        ("kafka.group_id", "https://me:secret@host/x", '"https://**********@host/x"'),
        ("kafka.group_id", "x" * 500, '"' + "x" * 116 + "..."),
        ("store.greptime.username", "me", MASK),
        ("traces.endpoint", Endpoint("https://host:4318/v1/traces?key=secret"), "https://host:4318/**********"),
        ("nothing.like_it", 3, MASK),
        ("alerts.width", None, "null"),
    ],
)
def test_show(key: str, value: object, shown: str) -> None:
    assert show(setting_at(Settings, tuple(key.split("."))), value) == shown


def test_every_setting_can_be_set_by_the_environment(tmp_path: Path) -> None:
    """Each default, written as a variable, gives the same settings, and the variable is its origin."""
    values = {k: v for k, v in values_of(Settings()) if v is not None and v != {}}
    environ = {}
    for key, value in values.items():
        words = value if isinstance(value, str) else json.dumps(value, default=_text)
        environ["SENTINEL_" + "__".join(key).upper()] = words.strip('"') if not isinstance(value, tuple) else words
    loaded = load(environ, tmp_path)
    assert loaded.settings == Settings()
    assert {loaded.origin(dotted(key)).layer for key in values} == {"environment"}


def _text(value: object) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def test_every_setting_has_a_description() -> None:
    assert [s.key for s in settings_of(Settings) if not s.field.description] == []


@given(st.text("abcdeio_st", max_size=9), st.text("abcdeio_st", max_size=9))
def test_unknown_names_are_refused_at_both_levels(first: str, second: str) -> None:
    known = set(Settings.model_fields)
    if first and second and first not in known and "__" not in f"{first}{second}".strip("_"):
        assert "unknown setting" in problems({f"SENTINEL_{first}__{second}".upper(): "1"}, Path("/nonexistent"))


def test_every_secret_is_masked() -> None:
    secrets = [s.key for s in settings_of(Settings) if plain(s.field.annotation) is SecretStr]
    assert secrets
    assert {show(setting_at(Settings, key), SecretStr("hunter2")) for key in secrets} == {MASK}


def test_loaded_is_a_value(tmp_path: Path) -> None:
    assert load({}, tmp_path) == load({}, tmp_path)
    assert isinstance(load({}, tmp_path), Loaded)


@pytest.mark.parametrize(
    ("text", "said", "line"),
    [
        (
            "[panes]\nexpiry_s = 300\n",
            "panes.expiry_s: must be at least time.correction_s = 600: a late event must still find its series",
            2,
        ),
        (
            "[time]\ncorrection_s = 0\nmax_ahead_s = 90000\n",
            "panes.expiry_s: must be at least time.max_ahead_s = 90000: no partition may be ahead by more than",
            3,
        ),
        (
            "[time]\npane_s = 300\ncorrection_s = 60\n",
            "time.correction_s: must be 0, or at least time.pane_s = 300: corrections reach whole panes",
            3,
        ),
        (
            "[time]\ncorrection_s = 0\npane_s = 3600\nmax_ahead_s = 60\n[panes]\nexpiry_s = 1800\n",
            "panes.expiry_s: must be at least time.pane_s = 3600: a series lives for one pane at least",
            6,
        ),
    ],
)
def test_settings_that_do_not_go_together_name_both_keys(tmp_path: Path, text: str, said: str, line: int) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        load({}, tmp_path)
    assert said in str(refused.value)
    assert f"set by {path}, line {line}" in str(refused.value)


def test_a_default_at_odds_with_another_value_names_that_one(tmp_path: Path) -> None:
    write(tmp_path, "[time]\npane_s = 3600\n")
    with pytest.raises(ConfigError, match=r"time.correction_s: must be 0, or at least time.pane_s = 3600"):
        load({}, tmp_path)


@pytest.mark.parametrize(
    ("text", "uses"),
    [("", False), ('[source]\nkind = "kafka"\n', True), ("[alerts]\nkafka = true\n", True),
     ("[dead_letters]\nkafka = true\n", True)],
)  # fmt: skip
def test_whether_kafka_is_used(tmp_path: Path, text: str, uses: bool) -> None:
    write(tmp_path, text)
    assert load({}, tmp_path).settings.uses_kafka is uses
