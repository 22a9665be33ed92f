"""The settings of detection that apply to a series, and the layer or override that each comes from."""

from __future__ import annotations

from collections.abc import Iterator

from flows.settings.model import Loaded, Settings
from flows.settings.schema import Key, dotted, setting_at, show, values_of
from operators import patterns
from operators import series as names
from operators.config import DetectConfig
from operators.errors import ConfigError
from operators.model import DIMENSIONS
from operators.overrides import OverrideConfig, by_itself, by_preset, matching_override

_SECTION = "detect"


def explain_series(loaded: Loaded, series: str, key: str = _SECTION) -> str:
    """The override that applies to the series, and a line for each of its settings at or below the key.

    `series` may be a pattern, which stands for all series that it matches. Raises `ConfigError` where `series` is no
    watched series, or `key` no key of detection.
    """
    _watched(loaded, series)
    detect = loaded.settings.detect
    number = matching_override(detect.overrides, series)
    lines = [f"{series}: {_said(loaded, number)}"]
    lines += [
        f"  but for those like {override.series}: {_said(loaded, other)}"
        for other, override in enumerate(detect.overrides)
        if (number is None or other > number) and patterns.may_meet(override.series, series)
    ]
    holds = detect if number is None else detect.of_override(number)
    holds = holds.model_copy(
        update={"limits": tuple(limit for limit in detect.limits if patterns.matches(series, limit.series))}
    )
    shown = [
        f"{name} = {show(setting_at(Settings, parts), value)}  ({_origin(loaded, parts, number)})"
        for parts, value in values_of(holds, (_SECTION,))
        if ((name := dotted(parts)) == key or name.startswith(key + ".")) and parts[1] != "overrides"
    ]
    if not shown:
        raise ConfigError(f"there is no setting {key} of detection; leave it out to see them all")
    return "\n".join(lines + shown)


def _watched(loaded: Loaded, series: str) -> None:
    sets = [",".join(s) for s in loaded.settings.panes.dimension_sets]
    parts = [part.partition("=") for part in series.split(",")]
    if any(c in series for c in "*?["):
        return
    if not all(equals and name in DIMENSIONS for name, equals, _ in parts):
        raise ConfigError(f"{series} is no series: write it as service=chat,model=m, or a pattern with *")
    if names.dimension_set(series) not in sets:
        raise ConfigError(
            f"no series of {names.dimension_set(series)} is watched; panes.dimension_sets are {'; '.join(sets)}"
        )


def _said(loaded: Loaded, number: int | None) -> str:
    if number is None:
        return "no override applies"
    override = loaded.settings.detect.overrides[number]
    muted = ", and nothing is told of it" if override.mute else ""
    return f'{_entry(number)}, series = "{override.series}", applies{muted} ({loaded.origin("detect.overrides")})'


def _entry(number: int) -> str:
    return f"entry {number + 1} of detect.overrides"


def _origin(loaded: Loaded, parts: Key, number: int | None) -> str:
    """The origin of the value: the override itself, its preset, or a layer."""
    if number is not None:
        override = loaded.settings.detect.overrides[number]
        if parts[1:] in _keys(by_itself(override)):
            return _entry(number)
        if parts[1:] in _keys(_preset(override)):
            return f"the preset {override.preset} of {_entry(number)}"
    return str(loaded.origin(dotted(parts)))


def _preset(override: OverrideConfig) -> dict[str, object]:
    return by_preset(override, DetectConfig().model_dump())


def _keys(tree: dict[str, object]) -> Iterator[Key]:
    return (key for key, _ in values_of(tree))
