"""Settings from layers: defaults, a TOML file, the environment, and the command; each value knows its origin.

Works for any tree of pydantic models and knows no setting by name. The problems of all layers are collected and raised
as one `ConfigError`, which names the key, the origin of the value and the allowed values of each. Refused values are
shown only if they are numbers: any text may be a secret in the wrong place.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from flows.settings.schema import (
    LISTS,
    Key,
    allowed,
    annotation_at,
    as_json,
    dotted,
    is_hidden,
    named,
    plain,
    section,
    setting_at,
    settings_of,
    show_refused,
    values_of,
    values_of_table,
)
from operators.errors import ConfigError

M = TypeVar("M", bound=BaseModel)

AT_ODDS: Final = "at_odds"
REFUSED: Final = "refused"

_ELSEWHERE: Final = "set it in the settings file or the environment"

_ADDRESS = re.compile(r"^(tcp|udp|sctp)://")
_QUOTED: Final = re.compile(r"""'[^']{3,}'|"[^"]{3,}"|\((?!at )[^)]*\)|(?<=character ).*(?= \(at)""", re.DOTALL)
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a value: its layer, and the place in it (`sentinel.toml, line 3`, a variable, an option)."""

    layer: Literal["default", "preset", "file", "environment", "command"]
    place: str = ""

    def __str__(self) -> str:
        words = {"default": "the default", "preset": "the preset, ", "environment": "environment variable "}
        return words.get(self.layer, "") + self.place


Overrides = Mapping[str, tuple[object, str]]
"""The settings of a command: dotted key to (value, the option it came from)."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value that a layer sets."""

    key: Key
    value: object
    origin: Origin


class Problems:
    """The problems of all layers, collected so that one start shows them all."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, key: Key, what: str, origin: Iterable[Origin], allowed: str = "", shown: str = "") -> None:
        """Adds one problem: a line that states it, a line for each origin, and a line with help."""
        self.lines.append(f"{named(key)}{' = ' + shown if shown else ''}: {what}")
        self.lines.extend(f"    set by {o}" for o in dict.fromkeys(origin))
        if allowed:
            self.lines.append(f"    {allowed}")

    def raise_if_any(self) -> None:
        """Raises one `ConfigError` with all problems, if there are any."""
        if self.lines:
            count = sum(not line.startswith(" ") for line in self.lines)
            head = "The settings have a problem:" if count == 1 else f"The settings have {count} problems:"
            raise ConfigError("\n".join([head, *(f"  {line}" for line in self.lines)]))


def at_odds(one: Key, other: Key, what: str) -> PydanticCustomError:
    """The error that a validator of the whole model raises if the values of two keys do not go together."""
    return PydanticCustomError(AT_ODDS, "{what}", {"what": what, "keys": [one, other]})


def refused(faults: Sequence[tuple[Key, str]]) -> PydanticCustomError:
    """The error that a validator of the whole model raises if it refuses values; `faults`: their keys and reasons."""
    what = "; ".join(f"{named(key)}: {what}" for key, what in faults)
    return PydanticCustomError(REFUSED, "{what}", {"what": what, "faults": faults})


def build(model: type[M], layers: Sequence[Sequence[Leaf]], problems: Problems) -> tuple[M, dict[str, Origin]]:
    """The settings of all layers, later ones over earlier ones, and the origin of every value.

    A value must have exactly the type of its setting, as in JSON: `"3"` is not an integer. Raises `ConfigError` with
    all `problems` and all refusals of the model.
    """
    winners = {leaf.key: leaf for layer in layers for leaf in layer}
    for leaf in list(winners.values()):
        if any(isinstance(v, float) and not math.isfinite(v) for v in _scalars(leaf.value)):
            shown = show_refused(setting_at(model, leaf.key), leaf.value)
            problems.add(leaf.key, "must be finite", [leaf.origin], shown=shown)
        elif not _is_unicode(leaf):
            problems.add(leaf.key, "must be UTF-8", [leaf.origin])
        else:
            continue
        del winners[leaf.key]
    tree: dict[str, Any] = {}
    for leaf in winners.values():
        node = tree
        for part in leaf.key[:-1]:
            node = node.setdefault(part, {})
        node[leaf.key[-1]] = leaf.value
    try:
        settings = model.model_validate_json(json.dumps(tree, default=as_json), strict=True)
    except ValidationError as error:
        _explain(error, model, winners, problems)
    problems.raise_if_any()
    default = Origin("default")
    provenance: dict[str, Origin] = {}
    for key, value in values_of(settings):
        origin = next((winners[key[:n]].origin for n in range(len(key), 0, -1) if key[:n] in winners), default)
        if origin.layer == "command" and is_hidden(setting_at(model, key), value):
            problems.add(
                key, "may be a secret, which is not for a command line: others can read it", [origin], _ELSEWHERE
            )
        provenance[dotted(key)] = origin
    problems.raise_if_any()
    return settings, provenance


def file_layer(path: Path, model: type[BaseModel], problems: Problems) -> list[Leaf]:
    """The values of a TOML file. Raises `ConfigError` where it cannot be read or is not TOML, with line and column."""
    try:
        text = path.read_bytes().decode("utf-8")
        tree = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"The settings file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"The settings file {path} is not UTF-8 (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"The settings file {path} is not TOML: {toml_fault(error)}") from None
    except (ValueError, RecursionError):
        raise ConfigError(
            f"The settings file {path} holds a number that is too long, or is nested too deeply"
        ) from None
    lines = _toml_lines(text)

    def origin(key: Key) -> Origin:
        known = next((key[:n] for n in range(len(key), 0, -1) if key[:n] in lines), None)
        return Origin("file", f"{path}, line {lines[known]}" if known else str(path))

    return list(_leaves(tree, model, (), origin, problems))


def toml_fault(error: tomllib.TOMLDecodeError) -> str:
    """The parser's message and place, without the names and texts that it quotes."""
    return _QUOTED.sub("...", str(error))


def environment_layer(
    environ: Mapping[str, str], prefix: str, model: type[BaseModel], problems: Problems, beside: Iterable[str] = ()
) -> list[Leaf]:
    """The values of variables; the name of a variable is `prefix` and the key in capitals, its parts joined by `__`.

    Lists and tables are JSON. A name that seems to mean a setting but names none is a problem. Other names (Kubernetes
    puts `<SERVICE>_SERVICE_HOST` and the like into every pod) and the names `beside` are passed over.
    """
    leaves: list[Leaf] = []
    flat = {"_".join(setting.key).upper(): setting.key for setting in settings_of(model)}
    for name in sorted(environ):
        rest = name.removeprefix(prefix)
        if rest == name or name in beside:
            continue
        origin = Origin("environment", name)
        key = tuple(rest.lower().split("__"))
        meant = flat.get(rest.upper()) if len(key) == 1 and not _ADDRESS.match(environ[name]) else None
        if key[0] not in model.model_fields and len(key) == 1 and meant is None:
            continue
        if rest != rest.upper() or (meant is not None and meant != key):
            right = prefix + "__".join(meant or key).upper()
            problems.add(key, "unknown setting", [origin], f"did you mean {right}?")
            continue
        tree: Any = _from_text(environ[name], annotation_at(model, key), key, origin, problems)
        for part in reversed(key):
            tree = {part: tree}
        leaves.extend(_leaves(tree, model, (), _always(origin), problems))
    return leaves


def command_layer(overrides: Overrides, model: type[BaseModel], problems: Problems) -> list[Leaf]:
    """The values that a command sets."""
    leaves: list[Leaf] = []
    for name, (value, option) in overrides.items():
        origin = Origin("command", option)
        tree: Any = value
        for part in reversed(_toml_key(name)):
            tree = {part: tree}
        leaves.extend(_leaves(tree, model, (), _always(origin), problems))
    return leaves


def set_options(texts: Sequence[str]) -> dict[str, tuple[object, str]]:
    """The overrides of options `--set KEY=VALUE`; a value is written as in a settings file, or is bare text.

    Raises `ConfigError` where one is not of this form.
    """
    found: dict[str, tuple[object, str]] = {}
    for number, text in enumerate(texts, 1):
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not _toml_key(name):
            raise ConfigError(f"--set, number {number}: write KEY=VALUE, as in --set detect.half_life_s=86400")
        try:
            found[name] = (tomllib.loads(f"value = {value}")["value"], "--set")
        except (ValueError, RecursionError):
            found[name] = (value, "--set")
    return found


def _always(origin: Origin) -> Callable[[Key], Origin]:
    return lambda _: origin


def _leaves(
    tree: Mapping[str, Any], annotation: Any, prefix: Key, origin: Callable[[Key], Origin], problems: Problems
) -> Iterator[Leaf]:
    """The values of a nested table, with a problem for each key that the schema does not have."""
    model, values = section(annotation), values_of_table(annotation)
    for name, value in tree.items():
        key = (*prefix, name)
        if model is None:
            inner = values
        elif name in model.model_fields:
            inner = model.model_fields[name].annotation
        else:
            problems.add(key, "unknown setting", [origin(key)], _nearest(prefix, name, model))
            continue
        if section(inner) is None and values_of_table(inner) is None:
            yield Leaf(key, value, origin(key))
        elif isinstance(value, Mapping):
            yield from _leaves(value, inner, key, origin, problems)
        else:
            problems.add(key, "must be a table", [origin(key)])


def _nearest(prefix: Key, name: str, model: type[BaseModel]) -> str:
    close = difflib.get_close_matches(name, model.model_fields, n=1)
    if close:
        return f"did you mean {dotted((*prefix, close[0]))}?"
    return f"{f'[{dotted(prefix)}] has' if prefix else 'there are'}: {', '.join(model.model_fields)}"


def _from_text(text: str, annotation: Any, key: Key, origin: Origin, problems: Problems) -> object:
    """A variable's text as a value of this annotation; the text itself if it is no such value."""
    bare = plain(annotation)
    if section(bare) or values_of_table(bare) is not None or get_origin(bare) in LISTS:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            example = '["a", "b"]' if get_origin(bare) in LISTS else '{"a": "b"}'
            problems.add(key, f"must be JSON, such as {example}{_json_fault(error)}", [origin])
            return [] if get_origin(bare) in LISTS else {}
    if bare is bool:
        return _BOOLEANS.get(text.strip().lower(), text)
    if bare in (int, float):
        try:
            return bare(text)
        except ValueError:
            return text
    return text


def _json_fault(error: Exception) -> str:
    """The place and the reason of a JSON error, without the text."""
    if not isinstance(error, json.JSONDecodeError):
        return ""
    return f"; {error.msg.partition(':')[0]} (line {error.lineno}, column {error.colno})"


def _explain(error: ValidationError, model: type[BaseModel], winners: Mapping[Key, Leaf], problems: Problems) -> None:
    """Adds one problem for each key that the model refuses."""
    found: dict[Key, list[str]] = {}
    for item in error.errors(include_url=False, include_input=False):
        if item["type"] == AT_ODDS:
            keys: list[Key] = item["ctx"]["keys"]
            origins = [winners[key].origin for key in keys if key in winners]
            problems.add(keys[0], str(item["msg"]), origins or [Origin("default")])
            continue
        if item["type"] == "default_factory_not_called":
            continue  # a value that this one depends on is wrong, and is reported
        if item["type"] == REFUSED:
            for place, what in item["ctx"]["faults"]:
                found.setdefault(_set_at(place, model, winners), []).append(what)
            continue
        key = _set_at(tuple(str(part) for part in item["loc"]), model, winners)
        what = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input ").replace("valid array", "list")
        what = "must be set" if item["type"] == "missing" else what
        found.setdefault(key, []).append(_inside(model, item["loc"], item["type"], what))
    for key, whats in found.items():
        setting = setting_at(model, key)
        problems.add(
            key,
            ", or ".join(dict.fromkeys(whats)),
            [leaf.origin for leaf in winners.values() if leaf.key[: len(key)] == key] or [Origin("default")],
            f"takes: {allowed(setting)}" if setting else "",
            show_refused(setting, winners[key].value) if key in winners else "",
        )


def _set_at(place: Key, model: type[BaseModel], winners: Mapping[Key, Leaf]) -> Key:
    """The key of the value that a layer sets at this place or above it; else the key of the setting there."""
    setting = setting_at(model, place)
    around = (place[:n] for n in range(len(place), 0, -1))
    return next((key for key in around if key in winners), setting.key if setting else place)


def _inside(model: type[BaseModel], place: Sequence[str | int], kind: str, what: str) -> str:
    """The problem as text, with its place if that is inside a list, and with the nearest name of an unknown setting."""
    number = next((n for n, part in enumerate(place) if isinstance(part, int)), None)
    if number is None:
        return what
    entry, *rest = place[number:]
    inner: Any = model
    for part in place[:-1]:
        inner = get_args(plain(inner))[0] if isinstance(part, int) else annotation_at(inner, (part,))
    table = section(inner)
    if kind == "extra_forbidden" and table is not None:
        what = f"unknown setting, {_nearest((), str(place[-1]), table)}"
    where = f", {named(tuple(str(part) for part in rest))}" if rest else ""
    return f"entry {int(entry) + 1}{where}: {what}"


def _is_unicode(leaf: Leaf) -> bool:
    """Whether key and value can be encoded; bytes of the environment that are not UTF-8 cannot."""
    try:
        json.dumps([leaf.key, leaf.value], default=as_json, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _scalars(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _scalars(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _scalars(inner)
    else:
        yield value


def _toml_lines(text: str) -> dict[Key, int]:
    """The line of each key, as far as single lines can tell; the first one if a key seems to stand twice."""
    lines: dict[Key, int] = {}
    table: Key = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[{1,2}([^\[\]]+)\]{1,2}\s*(#.*)?$", line)
        left = re.match(r"""\s*((?:[A-Za-z0-9_.\s-]|"[^"]*"|'[^']*')+?)\s*=""", line)
        if header:
            table = _toml_key(header[1])
            lines.setdefault(table, number)
        elif left:
            lines.setdefault((*table, *_toml_key(left[1])), number)
    return lines


def _toml_key(text: str) -> Key:
    try:
        node: object = tomllib.loads(f"{text} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    parts: list[str] = []
    while isinstance(node, dict):
        name, node = next(iter(node.items()))
        parts.append(name)
    return tuple(parts)
