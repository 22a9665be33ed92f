"""The base of all settings, and the one rule about showing their values.

A setting whose values are numbers, choices, times or paths may be shown, and so may text that is marked as
`PlainText`. Any other text is never shown: not in an error, a log, a repr or a report.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin
from urllib.parse import quote, unquote

from pydantic import AwareDatetime, BaseModel, ConfigDict, SecretStr
from pydantic.fields import FieldInfo

MASK: Final = "**********"
UNNAMED: Final = "(a name that is not shown)"
SHORTEST: Final = 4
"""Shorter secrets are not masked in texts: they are part of too many words."""

_NAME: Final = re.compile(r"[a-z]+([._-][a-z]+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Shown:
    """The mark of text that may be shown once it is accepted: a name or an address, which holds no secret.

    `of`: the kind of the name, if only certain names are accepted.
    """

    of: Literal["", "detector"] = ""


PlainText = Annotated[str, Shown()]


class Hidden(SecretStr):
    """Text that is never shown: its name is not that of a secret, but its content is unknown."""


class Section(BaseModel):
    """Base of every section: unknown keys are refused, values cannot be changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            field = type(self).model_fields.get(name or "")
            yield name, value if value is None or field is None or may_be_shown(field) else MASK


def may_be_shown(field: FieldInfo) -> bool:
    """Whether accepted values of this setting may be shown; a `SecretStr` among them masks itself."""
    return any(isinstance(mark, Shown) for mark in field.metadata) or _harmless(field.annotation)


def _harmless(annotation: Any) -> bool:
    """Whether values of this type hold no text but marked text and text that masks itself."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return True
    if origin is Annotated:
        return any(isinstance(mark, Shown) for mark in args[1:]) or _harmless(args[0])
    if origin in (Union, types.UnionType, tuple, list, dict):
        return all(_harmless(arg) for arg in args if arg is not Ellipsis)
    if annotation is AwareDatetime or hasattr(annotation, "__fspath__"):
        return True
    return isinstance(annotation, type) and issubclass(
        annotation, bool | int | float | datetime | types.NoneType | BaseModel | SecretStr
    )


def told(name: str) -> str:
    """The given name of a setting or an option, if it looks like a name: otherwise it may be a misplaced secret."""
    return name if len(name) <= 64 and _NAME.fullmatch(name) else UNNAMED


def without(text: str, secrets: Iterable[str]) -> str:
    """The text with these secrets masked, both as they are and as messages and addresses write them."""
    forms = {
        form
        for secret in secrets
        for form in (
            secret,
            repr(secret)[1:-1],
            json.dumps(secret)[1:-1],
            quote(secret, "", errors="surrogatepass"),
            quote(secret, errors="surrogatepass"),
            unquote(secret),
        )
        if len(form) >= SHORTEST
    }
    for form in sorted(forms, key=lambda form: (-len(form), form)):
        text = text.replace(form, MASK)
    return text
