"""The values of the settings, their origins, and the allowed values."""

from __future__ import annotations

from typing import Final

from flows.settings.model import PREFIX, Loaded, Settings
from flows.settings.schema import allowed, dotted, named, setting_at, show, values_of
from operators.errors import ConfigError

EVERYTHING: Final = ""
"""The key above all keys."""


def explain(loaded: Loaded, key: str = EVERYTHING) -> str:
    """A line for each value at or below the key: the value and its origin; for a single one also its allowed values.

    Raises `ConfigError` where nothing has that key.
    """
    below = [
        (name, parts, value)
        for parts, value in values_of(loaded.settings)
        if (name := dotted(parts)) == key or key == EVERYTHING or name.startswith(key + ".")
    ]
    setting = setting_at(Settings, tuple(key.split(".")))
    if not below and setting is None:
        raise ConfigError(
            f"there is no setting {named(tuple(key.split('.')))}; `python -m flows.check --explain` lists them all"
        )
    lines = [
        f"{name} = {show(setting_at(Settings, parts), value)}  ({loaded.origin(name)})" for name, parts, value in below
    ]
    if setting is not None and len(below) <= 1:
        lines = lines or [f"{key} is not set"]
        lines.append(f"  takes: {allowed(setting)}")
        if "." not in key.removeprefix(dotted(setting.key)):
            lines.append(f"  environment: {PREFIX}{'__'.join(setting.key).upper()}")
    return "\n".join(lines)
