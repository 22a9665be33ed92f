"""`python -m flows.check`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.prices import described, shipped
from flows import __version__
from flows.check.__main__ import main
from flows.check.explain import explain
from flows.settings.model import CONFIG_EXIT_CODE, Settings, load
from flows.settings.reference import detectors, example, metrics, reference
from flows.settings.schema import dotted, settings_of
from operators.errors import ConfigError
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def _nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SENTINEL_CONFIG", raising=False)


def test_right_settings(capsys: pytest.CaptureFixture[str]) -> None:
    Path("sentinel.toml").write_text("[time]\npane_s = 20\n")
    assert main([]) == 0
    shown, summary, _ = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"time.pane_s = 20  \(.*sentinel.toml, line 2\)", shown)
    assert summary.startswith("The settings are right: 1 set, ")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("", f"the {described(shipped())} that are shipped (enrich.shipped_prices)"),
        ('prices = "own.toml"', f"own.toml, then the {described(shipped())} that are shipped (enrich.shipped_prices)"),
        ('prices = "own.toml"\nshipped_prices = false', "own.toml"),
        ("shipped_prices = false", "none (enrich.prices, enrich.shipped_prices)"),
    ],
)
def test_the_price_tables_in_use_are_told(settings: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("sentinel.toml").write_text(f"[enrich]\n{settings}\n")
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Prices of events without a cost: {said}."


def test_one_setting_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--set", "time.pane_s=20", "--explain", "time.pane_s"]) == 0
    assert "time.pane_s = 20  (--set)" in capsys.readouterr().out
    assert main(["--set", "time.pane=20"]) == CONFIG_EXIT_CODE
    assert "did you mean time.pane_s" in capsys.readouterr().err


def test_wrong_settings(capsys: pytest.CaptureFixture[str]) -> None:
    Path("sentinel.toml").write_text("[time]\npane_s = 7\n")
    assert main([]) == 78
    assert "time.pane_s = 7: must divide a minute" in capsys.readouterr().err


def test_explain_one_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--explain", "time.pane_s"]) == 0
    shown, takes, environment = capsys.readouterr().out.splitlines()
    assert shown == "time.pane_s = 10  (the default)"
    assert takes.startswith("  takes: integer, at least 1, at most 3600. Width of a pane")
    assert environment == "  environment: SENTINEL_TIME__PANE_S"


def test_explain_an_unset_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--explain", "source.files.paths"]) == 0
    assert capsys.readouterr().out.startswith("source.files.paths is not set\n  takes: list of path")


def test_explain_a_section_and_everything() -> None:
    loaded = load({}, Path.cwd())
    assert len(explain(loaded, "time").splitlines()) == len(type(loaded.settings.time).model_fields)
    assert len(explain(loaded).splitlines()) == len(loaded.provenance)


OVERRIDES = """
[detect]
preset = "quiet"
[detect.metrics.latency]
min_count = 9
[[detect.limits]]
metric = "latency"
above = 5000
series = "service=chat*"
[[detect.overrides]]
series = "*service=batch-*"
preset = "sensitive"
metrics.latency.min_change = 3.0
ignore = ["requests"]
[[detect.overrides]]
series = "service=batch-night,*"
mute = true
"""


def of_series(capsys: pytest.CaptureFixture[str], series: str, *key: str) -> tuple[str, dict[str, str]]:
    """The head of the explanation of the series, and its values by setting."""
    Path("sentinel.toml").write_text(OVERRIDES)
    assert main(["--explain", *key, "--series", series]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    while lines and lines[0].startswith("  "):
        head += "\n" + lines.pop(0)
    return head, dict(line.split(" = ", 1) for line in lines)


def test_explain_a_series_with_an_override(capsys: pytest.CaptureFixture[str]) -> None:
    head, found = of_series(capsys, "service=batch-day,model=m,operation=chat")
    assert head.startswith("service=batch-day,model=m,operation=chat: entry 1 of detect.overrides")
    assert head.endswith("sentinel.toml, line 10)")
    assert found["detect.metrics.latency.min_change"] == "3.0  (entry 1 of detect.overrides)"
    assert found["detect.metrics.ttft.min_change"] == "1.3  (the preset sensitive of entry 1 of detect.overrides)"
    assert found["detect.detectors.requests"] == "[]  (entry 1 of detect.overrides)"
    assert found["detect.metrics.latency.min_count"].endswith("sentinel.toml, line 5)")
    assert found["detect.half_life_s"] == "43200.0  (the default)"
    assert found["detect.limits"].startswith("[] ")


def test_explain_a_series_without_override_names_the_preset(capsys: pytest.CaptureFixture[str]) -> None:
    head, found = of_series(capsys, "service=chat")
    assert head == "service=chat: no override applies"
    shown = found["detect.false_alarms_per_series_day"]
    assert shown.startswith("0.002  (the preset, detect.preset = quiet, set by ") and "line 3" in shown
    assert '"above": 5000' in found["detect.limits"]


def test_explain_the_series_of_a_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    head, found = of_series(capsys, "service=*,model=*", "detect.metrics.latency")
    assert len(found) == 5
    assert head.splitlines()[0] == "service=*,model=*: no override applies"
    assert [line.split(":")[0] for line in head.splitlines()[1:]] == [
        "  but for those like *service=batch-*", "  but for those like service=batch-night,*",
    ]  # fmt: skip
    assert "nothing is told of it" in head
    head, _ = of_series(capsys, "service=batch-*")
    assert "entry 1 of detect.overrides" in head.splitlines()[0] and len(head.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--explain", "--series", "batch"], "batch is no series"),
        (["--explain", "--series", "planet=mars"], "planet=mars is no series"),
        (["--explain", "--series", "model=m,service=s"], "no series of model,service is watched"),
        (["--explain", "time", "--series", "service=s"], "there is no setting time of detection"),
    ],
)
def test_explain_refuses_what_is_no_series(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 78
    assert said in capsys.readouterr().err


def test_a_series_is_for_explaining(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--series", "service=s"])
    assert "--series goes with --explain" in capsys.readouterr().err


def test_explain_an_unknown_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--explain", "time.pan"]) == 78
    assert "there is no setting time.pan" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        explain(load({}, Path.cwd()), "nothing")


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("sentinel.example.toml", example),
        ("docs/configuration.md", reference),
        ("docs/metrics.md", metrics),
        ("docs/detectors.md", detectors),
    ],
)
def test_documents_made_from_the_code_are_fresh(name: str, made: Callable[[], str]) -> None:
    assert (ROOT / name).read_text() == made(), "the document is stale: run `make docs`"


def test_the_reference_holds_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--reference"]) == 0
    printed = capsys.readouterr().out
    assert printed == reference()
    for setting in settings_of(Settings):
        assert f"`{dotted(setting.key)}" in printed


def test_the_reference_of_metrics_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--metrics"]) == 0
    assert capsys.readouterr().out == metrics()


def test_the_reference_of_detectors_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--detectors"]) == 0
    assert capsys.readouterr().out == detectors()


def test_the_example_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--example"]) == 0
    assert capsys.readouterr().out == example()


def test_the_version_is_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"llm-sentinel {__version__}\n"
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__


def test_explain_masks_secrets(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("sentinel.toml").write_text(
        '[kafka.options]\n"sasl.password" = "hunter2"\n[store.greptime]\nusername = "me"\npassword = "hunter3"\n'
    )
    monkeypatch.setenv("SENTINEL_KAFKA__PRODUCER_OPTIONS", '{"ssl.key.password": "hunter4"}')
    for arguments in (["--explain"], ["--explain", "kafka"], ["--explain", "store.greptime.password"], []):
        assert main(arguments) == 0
        shown = capsys.readouterr().out
        assert "hunter" not in shown
        assert "**********" in shown


def test_the_example_says_the_defaults_and_holds_every_setting() -> None:
    assert load({"SENTINEL_CONFIG": str(ROOT / "sentinel.example.toml")}, Path.cwd()).settings == Settings()
    switched_on = re.sub(r"(?m)^#(?=[\w\"]+ = .)", "", example())
    Path("all.toml").write_text(switched_on)
    loaded = load({"SENTINEL_CONFIG": "all.toml"}, Path.cwd())
    assert loaded.settings == Settings()
    layers = {key: origin.layer for key, origin in loaded.provenance.items()}
    unset = {key for key, layer in layers.items() if layer == "default"}
    assert {key.rsplit(".", 1)[-1] for key in unset} <= set(re.findall(r"(?m)^#(\w+) =$", example())) | {
        "files",
        "mapping",
        "topics",
        "attributes",
        "rules",
        "options",
        "consumer_options",
        "producer_options",
        "families",
        "votes",
        "start_offsets",
    }
    assert tomllib.loads(switched_on)["time"]["pane_s"] == 10


def test_an_option_that_librdkafka_does_not_know_is_found_without_a_broker(capsys: pytest.CaptureFixture[str]) -> None:
    Path("sentinel.toml").write_text('[alerts]\nkafka = true\n[kafka]\noptions = {"linger.mss" = 5}\n')
    assert main([]) == 78
    said = capsys.readouterr().err
    assert said.startswith("flows.check: kafka.options: ") and "linger.mss" in said


def test_options_are_not_checked_if_kafka_is_not_used() -> None:
    Path("sentinel.toml").write_text('[kafka]\noptions = {"linger.mss" = 5}\n')
    assert main([]) == 0
