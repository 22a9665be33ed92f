"""A secret in any setting, on purpose or by mistake, is in no output of any command."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flows import main, run, simulate
from flows.backtest import __main__ as backtest
from flows.check import __main__ as check
from flows.cluster import __main__ as cluster
from flows.settings.layers import set_options
from flows.settings.model import Settings, load
from flows.settings.schema import Setting, dotted, settings_of
from operators.decode.mapping import MappingConfig
from operators.errors import ConfigError
from operators.section import may_be_shown
from tests.brokers import free_port
from tests.processes import Job

MARK = "Zx9Q7vT3"
NUMBER = 918273645
EVERY = list(settings_of(Settings))
TEXTS_TAKEN = [s for s in EVERY if re.search(r"\b(str|Path|SecretStr|Endpoint)\b", repr(s.field.annotation))]

OPTIONS = ("options", "consumer_options", "producer_options")

FORMS = [
    "{0}", "user:{0}@host:9092", "host:9092,user:{0}@other:9092", "https://user:{0}@host/v1", "https://host/v1?token={0}",
    "https://host/{0}", "postgresql://user:{0}@host/db", '{{"sasl.password": "{0}"}}', '{{"sasl.password": "{0}"',
    '"{0}"', '["{0}"]', '["a", "{0}"', '{{"{0}": 1}}', '{{"{0}": "x"}}', "[{{\"series\": 3, \"{0}\": 4}}]",
    '{{"a": {{"b": "{0}"}}}}',
    '{{"sasl.pasword": "{0}"}}', '{{"sasl.username": "{0}"}}', '{{"security.protocol": "{0}"}}',
    '{{"ssl.key.pem": "{0}"}}',
    '{{"sasl.password": "{0}", "sasl.password"}}', '{{"sasl.password": ["{0}"]}}', '{{"ssl.ca.pem": "{0}"}}',
    '{{"sasl.oauthbearer.config": "a={0}"}}', '{{"sasl.jaas.config": "{0}"}}', '{{"debug": "all,{0}"}}',
    '{{"acks": "{0}"}}',
    "{{\"sasl.password\": 'a{0}'}}", "\\{0}", "{0}==", '{{"sasl.password" = "{0}"}}', "{0} = {0}",
]  # fmt: skip
JUNK = st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r{}", exclude_categories=["Cs"]), max_size=4)
SECRETS = st.builds(lambda a, b: f"{a}{MARK}{b}", JUNK, JUNK)
TEXTS = st.builds(lambda form, secret: form.format(secret), st.sampled_from(FORMS), SECRETS)


@contextmanager
def surroundings(folder: Path, variables: Mapping[str, str], out: io.StringIO) -> Iterator[None]:
    """Run the body in this folder with no other SENTINEL_ variables than these; printed text goes to `out`."""
    before = dict(os.environ)
    ours = {name: value for name, value in before.items() if not name.startswith("SENTINEL_")}
    with ExitStack() as stack:
        stack.enter_context(chdir(folder))
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(out))
        try:
            os.environ.clear()
            os.environ.update({**ours, **variables})
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def said(folder: Path, variables: Mapping[str, str], calls: Sequence[Callable[[], object]]) -> str:
    """The output and the errors of these commands."""
    out = io.StringIO()
    with surroundings(folder, variables, out):
        for call in calls:
            with suppress(SystemExit):
                print(call())
    return out.getvalue()


def refused(folder: Path, variables: Mapping[str, str], sets: Sequence[str] = ()) -> bool:
    """Whether these settings are refused, so that every command ends at once."""
    try:
        load(variables, folder, set_options(sets))
    except ConfigError:
        return True
    return False


def looks(sets: Sequence[str], key: str) -> list[Callable[[], object]]:
    """Commands that only look at the settings."""
    options = [word for text in sets for word in ("--set", text)]
    return [
        lambda: check.main(options),
        lambda: check.main([*options, "--explain"]),
        lambda: check.main([*options, "--explain", key]),
        lambda: check.main([*options, "--explain", "--series", "service=chat"]),
    ]


def starts(sets: Sequence[str]) -> list[Callable[[], object]]:
    """Commands that would start something."""
    options = [word for text in sets for word in ("--set", text)]
    found: list[Callable[[], object]] = [
        lambda: run.main(options),
        lambda: backtest.main([*options, "events.jsonl"]),
        lambda: backtest.main([*options, "--series", "series.csv"]),
    ]
    if sets:
        return found
    return [
        *found, main.flow, lambda: cluster.main(["--workers", "2", "-r", "recovery"]),
        lambda: simulate.main(["--kafka", f"user:{MARK}@host:9092", "--hours", "0.1"]),
    ]  # fmt: skip


def shown_rightly(setting: Setting) -> bool:
    """Whether an accepted value of this setting may be shown."""
    return may_be_shown(setting.field) and setting.key[-1] not in OPTIONS


def kept(folder: Path, variables: Mapping[str, str], sets: Sequence[str] = ()) -> str:
    """All texts of accepted settings that are kept or printed: reprs, run.json, the command that `flows.run` prints."""
    loaded = load(variables, folder, set_options(sets))
    shown = run.masked(loaded, run.variables(loaded, folder))
    return f"{loaded!r} {loaded.settings!s} {run.changed(loaded)} {shown} {loaded.settings.kafka!r} {set_options(sets)}"


def holds(folder: Path, setting: Setting, variables: Mapping[str, str], sets: Sequence[str] = ()) -> None:
    key = dotted(setting.key)
    if refused(folder, variables, sets):
        text = said(folder, variables, [*looks(sets, key), *starts(sets)])
    elif shown_rightly(setting):
        return
    else:
        # For a flow that reads Kafka, the client checks its options.
        text = said(folder, {"SENTINEL_SOURCE__KIND": "kafka", **variables}, looks(sets, key))
        text += kept(folder, variables, sets)
    assert MARK not in text
    assert str(NUMBER) not in text


def forms(setting: Setting) -> list[str]:
    """All forms for a setting that takes text, two for a setting of another type, which refuses each of them."""
    return FORMS if setting in TEXTS_TAKEN else [FORMS[0], FORMS[7]]


HYPOTHESIS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("setting", EVERY, ids=lambda s: dotted(s.key))
def test_in_a_variable(setting: Setting, tmp_path: Path) -> None:
    """Each setting in each form, and the table around it as JSON."""
    for form in forms(setting):
        text = form.format(MARK)
        holds(tmp_path, setting, {"SENTINEL_" + "__".join(setting.key).upper(): text})
    above, last = setting.key[:-1], setting.key[-1]
    name = "SENTINEL_" + "__".join(above).upper()
    for table in (
        json.dumps({last: MARK}),
        json.dumps({last: MARK})[:-1],
        f'{{"{last}x{MARK}": 1}}',
        f"[{MARK}]",
        MARK,
    ):
        holds(tmp_path, setting, {name: table})


@pytest.mark.parametrize("setting", EVERY, ids=lambda s: dotted(s.key))
def test_in_the_file(setting: Setting, tmp_path: Path) -> None:
    table, last = dotted(setting.key[:-1]), setting.key[-1]
    values = [json.dumps(form.format(MARK)) for form in FORMS[:8]]
    values += [
        f'["{MARK}"]',
        f'{{ "{MARK}" = 1 }}',
        f'{{ "sasl.password" = "{MARK}" }}',
        f'"{MARK}',
        MARK,
        f"'''{MARK}",
    ]
    values += [f'{{ "{MARK}" = 1, "{MARK}" = 2 }}', f'"{MARK}"\n{last} = "{MARK}"', f'"{MARK}" "{MARK}"', f'"\\{MARK}"']
    if setting in TEXTS_TAKEN:
        values.append(str(NUMBER))
    for value in values if setting in TEXTS_TAKEN else values[-8:]:
        (tmp_path / "sentinel.toml").write_text(f"[{table}]\n{last} = {value}\n")
        holds(tmp_path, setting, {})


@pytest.mark.parametrize("setting", EVERY, ids=lambda s: dotted(s.key))
def test_on_the_command_line(setting: Setting, tmp_path: Path) -> None:
    key = dotted(setting.key)
    for form in forms(setting)[:8]:
        text = form.format(MARK)
        for option in (f"{key}={text}", f"{key}={json.dumps(text)}", f"{key} {text}", text, f"{key}.{text}=1"):
            holds(tmp_path, setting, {}, [option])


@HYPOTHESIS
@given(st.sampled_from(EVERY), TEXTS)
@example(EVERY[0], MARK)
def test_in_any_variable_in_any_form(tmp_path: Path, setting: Setting, text: str) -> None:
    holds(tmp_path, setting, {"SENTINEL_" + "__".join(setting.key).upper(): text})


@HYPOTHESIS
@given(st.sampled_from(EVERY), st.one_of(TEXTS, TEXTS.map(json.dumps)))
def test_in_any_line_of_a_file(tmp_path: Path, setting: Setting, text: str) -> None:
    (tmp_path / "sentinel.toml").write_text(f"[{dotted(setting.key[:-1])}]\n{setting.key[-1]} = {text}\n")
    holds(tmp_path, setting, {})


def test_only_these_settings_show_text() -> None:
    """A new text setting is shown only if it is marked. Each mark needs an entry here, so that it is deliberate."""
    texts = [s for s in EVERY if re.search(r"\bstr\b", repr(s.field.annotation)) and may_be_shown(s.field)]
    mapped = [f"source.mapping.{name}" for name, field in MappingConfig.model_fields.items() if not field.is_required()]
    assert [dotted(s.key) for s in texts] == [
        "source.format", *mapped, "source.topics", "kafka.brokers", "kafka.topics", "kafka.alert_topic",
        "kafka.dead_letter_topic", "kafka.heartbeat_topic", "kafka.group_id", "kafka.start_offsets", "kafka.options",
        "kafka.consumer_options", "kafka.producer_options",
        "decode.attributes", "enrich.prices", "enrich.families", "panes.dimension_sets", "detect.detectors",
        "detect.votes", "detect.metrics",
        "detect.traffic.time_zone", "store.greptime.endpoint", "store.greptime.database", "metrics.host",
    ]  # fmt: skip


def test_known_names_look_like_names() -> None:
    """Names that do not look like names are left out of messages."""
    assert [dotted(s.key) for s in EVERY if any(not part.replace("_", "").isalpha() for part in s.key)] == []


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "flows.check"],
        ["-m", "flows.check", "--explain"],
        ["-m", "flows.check", "--connect"],
        ["-m", "bytewax.run", "flows.main"],
        ["-m", "flows.cluster", "--workers", "2", "-r", "recovery"],
        ["-m", "flows.run"],
    ],
    ids=" ".join,
)
def test_processes_whose_neighbours_are_away(command: list[str], tmp_path: Path) -> None:
    """Commands with every secret set and all debug lines of the Kafka client, while no neighbour answers."""
    (tmp_path / "sentinel.toml").write_text(
        f"""
        source.kind = "kafka"
        alerts.kafka = true
        cluster.restarts = 0
        log.level = "debug"
        sinks.budget_s = 0
        [kafka]
        brokers = "127.0.0.1:{free_port()}"
        start_budget_s = 0
        options = {{ "security.protocol" = "SASL_PLAINTEXT", "sasl.mechanism" = "PLAIN", "sasl.username" = "{MARK}",
            "sasl.password" = "{MARK}", "debug" = "all", "log_level" = "7", "ssl.key.password" = "{MARK}" }}
        [store]
        kind = "greptime"
        greptime = {{ endpoint = "127.0.0.1:{free_port()}", username = "u", password = "{MARK}" }}
        [traces]
        endpoint = "http://127.0.0.1:{free_port()}/v1/traces?api-key={MARK}"
        token = "{MARK}"
        """.replace(",\n           ", ",")
    )
    assert MARK in str(tomllib.loads((tmp_path / "sentinel.toml").read_text()))
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SENTINEL_")}
    ours["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=ours, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout + done.stderr
    assert MARK not in done.stdout + done.stderr
    for path in tmp_path.rglob("run.json"):
        assert MARK not in path.read_text()


def test_a_flow_whose_store_and_collector_are_away(tmp_path: Path) -> None:
    """The flow reads, but can send neither rows nor spans; the client of the collector logs whole addresses."""
    job = Job(
        tmp_path,
        {
            "source.simulator.hours": 0.5, "log.level": "debug", "sinks.budget_s": 1, "store.kind": "greptime",
            "store.greptime": {"endpoint": f"127.0.0.1:{free_port()}", "username": f"{MARK}u", "password": f"{MARK}p"},
            "traces": {
                "endpoint": f"http://127.0.0.1:{free_port()}/v1/traces?key={MARK}", "token": f"{MARK}t", "batches": 1,
            },
        },
    )  # fmt: skip
    with job.start(*job.recovered(1)) as flow:
        assert flow.finish(60) == 1
        said = flow.said()
    assert "GreptimeDB at 127.0.0.1" in said
    assert "opentelemetry" in said or "urllib3" in said
    assert MARK not in said


@pytest.mark.parametrize("malformed", [f'{{"sasl.password": "{MARK}"', f"sasl.password={MARK}", f'["{MARK}"]'])
def test_processes_with_malformed_options(malformed: str, tmp_path: Path) -> None:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SENTINEL_")}
    ours |= {"PYTHONPATH": str(Path(__file__).parents[2]), "SENTINEL_KAFKA__OPTIONS": malformed}
    for command in (["flows.check", "--explain"], ["bytewax.run", "flows.main"]):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, env=ours, capture_output=True, text=True, check=False
        )
        assert done.returncode == 78
        assert "kafka.options: must be" in done.stderr
        assert "SENTINEL_KAFKA__OPTIONS" in done.stderr
        assert MARK not in done.stdout + done.stderr
