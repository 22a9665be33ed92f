"""The settings of a mapping from somebody's own JSON to native events.

A field is filled from a path (`usage.input`, `calls[0].model`, `attributes."llm.model"`), from a constant (`=my-app`),
from a table of a path with its unit or the meanings of its values, or from the first of several such that is there.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from operators.decode.paths import steps, whence
from operators.section import PlainText, Section

Unit = Literal["s", "ms", "us", "ns", "usd", "cents", "nanousd", "tokens", "k"]

_TIMES: Final[dict[str, str]] = {"s": "1e3", "ms": "1", "us": "1e-3", "ns": "1e-6"}
_MONEY: Final[dict[str, str]] = {"usd": "1", "cents": "1e-2", "nanousd": "1e-9"}
_COUNTS: Final[dict[str, str]] = {"tokens": "1", "k": "1e3"}
UNITS: Final[dict[str, dict[str, str]]] = {
    "latency_ms": _TIMES,
    "ttft_ms": _TIMES,
    "cost_usd": _MONEY,
    "prompt_tokens": _COUNTS,
    "completion_tokens": _COUNTS,
    "cached_tokens": _COUNTS,
    "cache_write_tokens": _COUNTS,
    "reasoning_tokens": _COUNTS,
}
"""The units that a field may come in, each with its factor to the field's own unit."""

_WAYS: Final = (
    'a path such as usage.input, a constant such as "=my-app", a table { path, unit, map }, or a list of these'
)


class Way(Section):
    """One way to a field: a constant, or a path whose values have a unit or a meaning.

    A path that begins with `^.` begins at the record, any other one at the call. A value that `map` does not name
    becomes that of `"*"`; without it the value stays as it is.
    """

    path: PlainText | None = Field(None, description="The keys to the value, with dots between them.")
    constant: PlainText | None = Field(None, description="A text that every call has.")
    unit: Unit | None = Field(None, description="The unit of the values.")
    map: dict[PlainText, PlainText] | None = Field(None, description='The meaning of each value, "*" of all others.')

    @model_validator(mode="after")
    def _one(self) -> Way:
        if (self.path is None) == (self.constant is None):
            raise ValueError("needs either a path or a constant")
        if self.path is not None:
            whence(self.path)
        return self


def _ways(value: Any) -> Any:
    """The ways that a setting tells, as the tables of `Way`."""
    ways = list(value) if isinstance(value, list | tuple) else [value]
    if not ways or not all(isinstance(way, str | dict | Way) and way for way in ways):
        raise ValueError(f"must be {_WAYS}")
    return tuple(_table(way) if isinstance(way, str) else way for way in ways)


def _table(way: str) -> dict[str, str]:
    return {"constant": way[1:]} if way.startswith("=") else {"path": way}


Ways = Annotated[tuple[Way, ...], BeforeValidator(_ways, json_schema_input_type=str | Way | list[str | Way])]


class MappingConfig(Section):
    """Own JSON: where each field of a native event stands in a record, or its constant."""

    each: PlainText | None = Field(
        None, description="The path of an array in the record whose elements are the calls; paths begin at the element."
    )
    timestamp: Ways = Field(description="The start of the call.")
    end: Ways | None = Field(None, description="The end of the call, which gives the latency if there is none.")
    service: Ways = Field(description="The service.")
    model: Ways | None = Field(None, description="The model that answered.")
    model_requested: Ways | None = Field(None, description="The model that was asked for.")
    provider: Ways | None = Field(None, description="The provider.")
    operation: Ways | None = Field(None, description="The operation: chat, embeddings, ...")
    tenant: Ways | None = Field(None, description="The tenant.")
    region: Ways | None = Field(None, description="The region.")
    agent: Ways | None = Field(None, description="The agent.")
    user: Ways | None = Field(None, description="The end user.")
    key: Ways | None = Field(None, description="The API key's id.")
    session_id: Ways | None = Field(None, description="The session.")
    latency_ms: Ways | None = Field(None, description="The duration of the call; units s, ms, us, ns.")
    ttft_ms: Ways | None = Field(None, description="The time to the first token; units s, ms, us, ns.")
    prompt_tokens: Ways | None = Field(None, description="The whole input; units tokens, k.")
    completion_tokens: Ways | None = Field(None, description="The output; units tokens, k.")
    cached_tokens: Ways | None = Field(None, description="The input that came from a cache; units tokens, k.")
    cache_write_tokens: Ways | None = Field(None, description="The input written to a cache; units tokens, k.")
    reasoning_tokens: Ways | None = Field(None, description="The output that was reasoning; units tokens, k.")
    cost_usd: Ways | None = Field(None, description="The cost; units usd, cents, nanousd.")
    quality_score: Ways | None = Field(None, description="The quality score.")
    status: Ways | None = Field(None, description="Whether it failed: ok, error, an HTTP status, ...")
    error_type: Ways | None = Field(None, description="The kind of error; makes the call an error.")
    finish_reason: Ways | None = Field(None, description="Why the model stopped.")
    streamed: Ways | None = Field(None, description="Whether the answer was streamed: true, false.")
    trace_id: Ways | None = Field(None, description="The trace.")
    span_id: Ways | None = Field(None, description="The span, which a call is known again by.")
    event_id: Ways | None = Field(None, description="An id of the call, which it is known again by.")

    @field_validator("each")
    @classmethod
    def _path(cls, v: str | None) -> str | None:
        if v is not None:
            steps(v)
        return v

    @field_validator("*")
    @classmethod
    def _fitting(cls, v: Any, info: ValidationInfo) -> Any:
        units = UNITS.get(info.field_name or "", {})
        for way in v if isinstance(v, tuple) else ():
            if way.unit is not None and way.unit not in units:
                allowed = f"has one of the units {', '.join(units)}" if units else "has no unit"
                raise ValueError(f"{allowed}, not {way.unit}")
        return v

    def ways(self) -> list[tuple[str, Way]]:
        """Each way to a field with the field's name; the ways to one field in their order."""
        fields = ((name, getattr(self, name)) for name in type(self).model_fields if name != "each")
        return [(name, way) for name, ways in fields for way in ways or ()]
