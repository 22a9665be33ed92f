"""The schema of the settings in a tree of pydantic models: keys, allowed values, and values as text."""

from __future__ import annotations

import datetime
import json
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from connectors.config import Endpoint
from operators.detect import registry
from operators.section import MASK, Hidden, Shown, may_be_shown, told

Key = tuple[str, ...]

_SHOWN: Final = 120
LISTS: Final = (tuple, list, set, frozenset)

_USERINFO = re.compile(r"//[^/@\s]*@")
_BOUNDS: Final = {
    "ge": "at least",
    "gt": "above",
    "le": "at most",
    "lt": "below",
    "min_length": "length at least",
    "max_length": "length at most",
    "pattern": "matching",
}
_LARGE: Final = 10**18
_NUMBERS: Final = frozenset({"true or false", "integer", "number"})
_NAMES: Final[dict[Any, str]] = {
    bool: "true or false",
    int: "integer",
    float: "number",
    str: "text",
    SecretStr: "secret text",
    Endpoint: "secret text",
    Path: "path",
}
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {"": (), "detector": registry.choices()}
"""The accepted names of each kind of thing that a text may name (`Shown.of`)."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One entry of the schema: its key, and the field with its type and bounds."""

    key: Key
    field: FieldInfo


def dotted(key: Key) -> str:
    """The key as TOML writes it: `kafka.options."sasl.password"`."""
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part) for part in key)


def settings_of(model: type[BaseModel], prefix: Key = ()) -> Iterator[Setting]:
    """Every setting of the schema, in the order of declaration; sections are entered, not listed."""
    for name, field in model.model_fields.items():
        inner = section(field.annotation)
        if inner is not None:
            yield from settings_of(inner, (*prefix, name))
        else:
            yield Setting((*prefix, name), field)


def values_of(value: object, key: Key = ()) -> Iterator[tuple[Key, object]]:
    """Every value that a model holds, with its key; sections and tables are entered unless they are empty."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from values_of(getattr(value, name), (*key, name))
    elif isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from values_of(inner, (*key, str(name)))
    else:
        yield key, value


def setting_at(model: type[BaseModel], key: Key) -> Setting | None:
    """The setting that the key names or lies in; None if there is none, or if the key names a whole section."""
    annotation: Any = model
    found: Setting | None = None
    for n, part in enumerate(key, 1):
        inner, values = section(annotation), values_of_table(annotation)
        if inner is not None and part in inner.model_fields:
            found = Setting(key[:n], inner.model_fields[part])
            annotation = found.field.annotation
        elif values is not None:
            annotation = values
        else:
            break
    return None if section(annotation) is not None else found


def annotation_at(model: type[BaseModel], key: Key) -> Any:
    """The annotation at the key; None if the schema has nothing there."""
    annotation: Any = model
    for part in key:
        inner, values = section(annotation), values_of_table(annotation)
        if inner is not None and part in inner.model_fields:
            annotation = inner.model_fields[part].annotation
        elif values is not None:
            annotation = values
        else:
            return None
    return annotation


def named(key: Key) -> str:
    """The key for a message, without the parts that do not look like names: a person wrote them."""
    return ".".join(map(told, key))


def show(setting: Setting | None, value: object) -> str:
    """An accepted value of this setting as text, cut after 120 characters; masked if it may not be shown."""
    if value is None:
        return "null"
    if setting is None or not may_be_shown(setting.field):
        return MASK
    text = _USERINFO.sub(f"//{MASK}@", _shown(value))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{dotted((str(k),))} = {_shown(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, default=_open, ensure_ascii=False)


def _open(value: object) -> object:
    """A section within a list, as the values that it sets; those that may not be shown are masked."""
    if not isinstance(value, BaseModel):
        return as_json(value)
    fields = type(value).model_fields
    return {
        name: MASK if is_hidden(Setting((name,), field), getattr(value, name)) else getattr(value, name)
        for name, field in fields.items()
        if name in value.model_fields_set
    }


def show_refused(setting: Setting | None, value: object) -> str:
    """A refused value as text if it is a number and the setting takes one. Anything else may be a misplaced secret."""
    if (
        setting is None
        or not isinstance(value, int | float)
        or not _NUMBERS.issuperset(_kinds(setting.field.annotation))
    ):
        return ""
    text = f"{value:.12g}" if isinstance(value, float) else str(value) if abs(value) < _LARGE else ""
    return text.lower()


def is_hidden(setting: Setting | None, value: object) -> bool:
    """Whether part of this accepted value, or all of it, may not be shown."""
    return value is not None and (isinstance(value, SecretStr) or setting is None or not may_be_shown(setting.field))


def secrets_of(value: object) -> Iterator[str]:
    """Every text of these settings that must not appear in a log."""
    for _, found in values_of(value):
        if isinstance(found, Endpoint):
            yield from found.secrets()
        elif isinstance(found, SecretStr) and not isinstance(found, Hidden):
            yield found.get_secret_value()


def allowed(setting: Setting) -> str:
    """The allowed values of a setting: its type in the words of TOML, its bounds, and its description."""
    kinds = " or ".join(dict.fromkeys(_kinds(setting.field.annotation)))
    bounds = [
        f"{word} {getattr(rule, name)}"
        for rule in setting.field.metadata
        for name, word in _BOUNDS.items()
        if getattr(rule, name, None) is not None
    ]
    return f"{', '.join([kinds, *bounds])}. {setting.field.description or ''}".rstrip()


def _kinds(annotation: Any) -> Iterator[str]:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        for arg in args:
            if arg is not type(None):
                yield from _kinds(arg)
    elif origin is Annotated:
        names = next((_CHOICES[mark.of] for mark in args[1:] if isinstance(mark, Shown)), ())
        yield from (_one_of(names),) if names else _kinds(args[0])
    elif origin is Literal:
        yield _one_of(args)
    elif origin in LISTS:
        yield "list of " + " or ".join(dict.fromkeys(_kinds(args[0])))
    elif origin is dict:
        yield "table of " + " or ".join(dict.fromkeys(_kinds(args[1])))
    else:
        yield _NAMES.get(annotation) or ("table" if section(annotation) else "RFC 3339 time")


def _one_of(choices: Iterable[object]) -> str:
    return "one of " + ", ".join(map(json.dumps, choices))


def plain(annotation: Any) -> Any:
    """The annotation without `Annotated` and without `| None`."""
    if get_origin(annotation) is Annotated:
        return plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [arg for arg in get_args(annotation) if arg is not type(None)]
        return plain(rest[0]) if len(rest) == 1 else annotation
    return annotation


def section(annotation: Any) -> type[BaseModel] | None:
    """The model that the annotation stands for; None if it is no section."""
    bare = plain(annotation)
    return bare if isinstance(bare, type) and issubclass(bare, BaseModel) else None


def values_of_table(annotation: Any) -> Any:
    """The annotation of the values of a table with free keys; None if it is no such table."""
    bare = plain(annotation)
    return get_args(bare)[1] if get_origin(bare) is dict else None


def as_json(value: object) -> object:
    """The value for `json.dumps`: a section as the values that it sets, a time of TOML in ISO form, others as text."""
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)
