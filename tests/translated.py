"""Records of the formats that are translated: how each tells a call, and what of it.

A format that is added needs an entry in each of the tables at the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from operators.decode import vocabulary
from operators.decode.mapping import MappingConfig
from operators.decode.registry import MAPPED
from operators.model import SENT_LABELS, Reason
from tests import otlp
from tests.told import Told, late_by

_TOKENS: Final = ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
_OF_PROMPT: Final = ("prompt_tokens", "cached_tokens", "cache_write_tokens")
_CALLS: Final = ("chat", "text_completion", "embeddings")


def _limited(said: Told, labels: Mapping[str, Callable[[str], str]], steps: Sequence[str]) -> Told:
    """The call with these labels in their words, and these values; `service` is always told."""
    kept = {name: labels[name](text) for name, text in said.labels.items() if name in labels and text}
    return said._replace(
        labels={"service": said.labels["service"], **kept}, steps={n: v for n, v in said.steps.items() if n in steps}
    )


def _without(said: Told, *names: str) -> Told:
    return said._replace(steps={name: value for name, value in said.steps.items() if name not in names})


def _within(said: Told) -> Told:
    """The call with no more cached tokens than its prompt has: more would say that the prompt lacks them."""
    steps = said.steps
    if not {"cached_tokens", "prompt_tokens"} <= set(steps):
        return said
    return said._replace(steps={**steps, "cached_tokens": min(steps["cached_tokens"], steps["prompt_tokens"])})


def _told(said: Told, *names: str) -> dict[str, Any]:
    """Those of these values that are told, in fixed-point steps, which of tokens are tokens."""
    return {name: said.steps[name] for name in names if name in said.steps}


def _counted(said: Told) -> Told:
    """Without counts of 0 that nobody counted: those of the prompt if it has none, and then all if nothing came."""
    if said.steps.get("prompt_tokens"):
        return said
    judged = _OF_PROMPT if said.steps.get("completion_tokens") else _TOKENS
    return _without(said, *(name for name in judged if said.steps.get(name) == 0))


def _as_sent(text: str) -> str:
    return text


def _always(word: str) -> Callable[[str], str]:
    return lambda _: word


def _time(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat(timespec="milliseconds")


# OTLP

_OTLP_LABELS: Final = {
    "model": _as_sent, "operation": _always("chat"), "provider": vocabulary.provider, "tenant": _as_sent,
    "region": _as_sent, "agent": _as_sent, "error_type": vocabulary.error_type,
    "finish_reason": vocabulary.finish_reason,
}  # fmt: skip
_OTLP_ATTRIBUTES: Final = {
    "agent": "gen_ai.agent.name", "model": "gen_ai.response.model", "provider": "gen_ai.provider.name",
    "tenant": "tenant.id", "error_type": "error.type", "finish_reason": "gen_ai.response.finish_reasons",
    "prompt_tokens": "gen_ai.usage.input_tokens", "completion_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens", "cost": "gen_ai.usage.cost",
    "quality": "gen_ai.evaluation.score.value",
}  # fmt: skip


def _otlp_carried(said: Told) -> Told:
    said = _limited(said, _OTLP_LABELS, ("latency", "ttft", "cost", "quality", *_TOKENS))
    said.labels.setdefault("operation", "chat")
    steps = dict(said.steps)
    parts_of = {"prompt_tokens": ("cached_tokens", "cache_write_tokens"), "completion_tokens": ("reasoning_tokens",)}
    for whole, parts in parts_of.items():
        if (left := steps.get(whole)) is not None:
            for part in [part for part in parts if part in steps]:
                steps[part] = min(steps[part], left)
                left -= steps[part]
    if "ttft" in steps and "latency" in steps:
        steps["ttft"] = min(steps["ttft"], steps["latency"])
    said = _counted(said._replace(steps=steps, event_id="", trace_id=_trace(said)))
    return said if said.steps.get("cost") or "error_type" in said.labels else _without(said, "cost")


def _trace(said: Told) -> str:
    return said.trace_id.encode().hex().rjust(32, "1")


def _span(said: Told) -> otlp.Plain:
    """The span of a call; prompts stand where instrumentations put them."""
    values = said.in_units()
    sent = {**said.labels, **_told(said, *_TOKENS)}
    attributes: dict[str, Any] = {_OTLP_ATTRIBUTES[n]: v for n, v in sent.items() if n in _OTLP_ATTRIBUTES and v != ""}
    attributes["gen_ai.operation.name"] = "chat"
    if "finish_reason" in said.labels:
        attributes["gen_ai.response.finish_reasons"] = [said.labels["finish_reason"]]
    if "ttft" in said.steps:
        attributes |= {"gen_ai.request.stream": True, "gen_ai.response.time_to_first_chunk": values["ttft_ms"] / 1_000}
    for name, field in (("cost", "cost_usd"), ("quality", "quality_score")):
        if name in said.steps:
            attributes[_OTLP_ATTRIBUTES[name]] = values[field]
    resource = {"service.name": said.labels["service"], "cloud.region": said.labels.get("region", "")}
    return otlp.Plain(
        attributes,
        span_id=f"{said.at:016x}"[-16:],
        trace_id=said.trace_id,
        start=said.at * 1_000,
        end=(said.at + said.steps["latency"]) * 1_000 if "latency" in said.steps else 0,
        status=2 if said.labels.get("error_type") else 0,
        scope="calls",
        resource=resource,
    )


def _spans(said: Sequence[Told]) -> list[otlp.Plain]:
    return [_span(_otlp_carried(one)) for one in said]


def _amid_spans(said: Sequence[Told]) -> list[otlp.Plain]:
    """The calls below spans of an agent, of a framework and of a retry; each call's span comes twice."""
    found: list[otlp.Plain] = []
    for i, span in enumerate(_spans(said)):
        agent, framework = f"a{i:015x}", f"f{i:015x}"
        sums = {"gen_ai.usage.input_tokens": 999, "gen_ai.usage.output_tokens": 999, "gen_ai.request.model": "other"}
        ids: dict[str, Any] = {
            "trace_id": span.trace_id,
            "start": span.start - 5_000,
            "end": max(span.end, span.start) + 5_000,
        }
        about: dict[str, Any] = {"resource": span.resource, "scope": "agents", "kind": 1}
        found.append(
            otlp.Plain({"gen_ai.operation.name": "invoke_agent", **sums}, agent, name="invoke_agent", **ids, **about)
        )
        above = {**span.attributes, "openinference.span.kind": "LLM"}
        found.append(otlp.Plain(above, framework, agent, name="ChatOpenAI", status=span.status, **ids, **about))
        span.parent_id = framework
        found += [span, span]
    return found


# LiteLLM

_LITELLM_LABELS: Final = {
    "model": _as_sent, "operation": vocabulary.operation, "provider": vocabulary.provider, "tenant": _as_sent,
    "error_type": vocabulary.error_type, "finish_reason": vocabulary.finish_reason,
}  # fmt: skip


def _litellm_carried(said: Told) -> Told:
    said = _counted(_within(_limited(said, _LITELLM_LABELS, ("latency", "ttft", "cost", *_TOKENS))))
    if "error_type" in said.labels:
        said.labels.pop("finish_reason", None)
        said = said._replace(event_id="")
    if "latency" not in said.steps or said.steps.get("ttft") == said.steps["latency"]:
        said = _without(said, "ttft")
    return said if said.steps.get("cost") else _without(said, "cost")


def _litellm(said: Told) -> dict[str, Any]:
    said = _litellm_carried(said)
    labels, steps = said.labels, said.steps
    failed = "error_type" in labels
    counts = _told(said, "prompt_tokens", "completion_tokens")
    usage = {
        **counts,
        "prompt_tokens_details": {"cached_tokens": steps.get("cached_tokens")},
        "cache_creation_input_tokens": steps.get("cache_write_tokens"),
        "completion_tokens_details": {"reasoning_tokens": steps.get("reasoning_tokens")},
    }
    record = {
        "id": said.event_id or None,
        "trace_id": said.trace_id,
        "litellm_call_id": f"call-{said.at}",
        "call_type": labels.get("operation", ""),
        "startTime": said.at / 1e6,
        "endTime": (said.at + steps["latency"]) / 1e6 if "latency" in steps else None,
        "completionStartTime": (said.at + steps["ttft"]) / 1e6 if "ttft" in steps else None,
        "stream": "ttft" in steps,
        "status": "failure" if failed else "success",
        "error_information": {"error_class": labels["error_type"]} if failed else None,
        "custom_llm_provider": labels.get("provider"),
        "model": labels.get("model"),
        "metadata": {
            "requester_metadata": {"service_name": labels["service"]},
            "user_api_key_team_alias": labels.get("tenant"),
            "usage_object": usage,
        },
        "response": {"choices": [{"finish_reason": labels.get("finish_reason")}]},
        **counts,
    }
    return record | ({"response_cost": said.in_units()["cost_usd"]} if "cost" in steps else {})


def _amid_litellm(said: Sequence[Told]) -> list[Any]:
    """Answers from the cache, a file that was listed, and each call from two callbacks."""
    found: list[Any] = []
    for one in map(_litellm, said):
        apart = {**one, "litellm_call_id": "other", "id": "other"}
        found += [{**apart, "cache_hit": True}, one, {**apart, "call_type": "afile_list"}, {**one, "cache_hit": False}]
    return found


# Kong

_KONG_LABELS: Final = {
    "model": _as_sent, "operation": _always("chat"), "provider": vocabulary.provider, "tenant": _as_sent,
    "error_type": _always("rate_limit"),
}  # fmt: skip


def _kong_carried(said: Told) -> Told:
    said = _within(_limited(said, _KONG_LABELS, ("latency", "ttft", "cost", "quality", *_TOKENS)))
    said.labels.setdefault("provider", "openai")
    said = _counted(_without(said, "cache_write_tokens"))
    return said if said.steps.get("cost") else _without(said, "cost")


def _kong(said: Told) -> dict[str, Any]:
    said = _kong_carried(said)
    labels, steps, values = said.labels, said.steps, said.in_units()
    usage = {
        **_told(said, "prompt_tokens", "completion_tokens"),
        "prompt_tokens_details": {"cached_tokens": steps.get("cached_tokens")},
        "completion_tokens_details": {"reasoning_tokens": steps.get("reasoning_tokens")},
        "time_to_first_token": values.get("ttft_ms"),
        "cost": values.get("cost_usd"),
        "llm_accuracy": values["quality_score"] * 100 if "quality" in steps else None,
    }
    meta = {
        "provider_name": labels["provider"],
        "response_model": labels.get("model"),
        "llm_latency": values.get("latency_ms"),
        "request_mode": "stream" if "ttft" in steps else "oneshot",
    }
    return {
        "started_at": said.at // 1_000,
        "latencies": {},
        "service": {"name": labels["service"]},
        "consumer": {"username": labels.get("tenant")},
        "trace_id": {"w3c": said.trace_id},
        "upstream_uri": "/v1/chat/completions" if "operation" in labels else "/",
        "request": {"id": said.event_id},
        "response": {"status": 429 if "error_type" in labels else 200},
        "ai": {"proxy": {"meta": meta, "usage": usage}},
    }


def _amid_kong(said: Sequence[Told]) -> list[Any]:
    """Answers from the gateway's cache, requests of no model, and each line twice."""
    found: list[Any] = []
    for one in map(_kong, said):
        cached = {"proxy": {**one["ai"]["proxy"], "cache": {"cache_status": "Hit"}}}
        found += [one, {**one, "ai": cached}, {**one, "ai": {}}, one]
    return found


# Envoy

_ENVOY_LABELS: Final = {
    "model": _as_sent, "operation": _always("chat"), "provider": _always("openai"), "tenant": _as_sent,
    "error_type": _always("rate_limit"),
}  # fmt: skip


def _envoy_carried(said: Told) -> Told:
    said = _within(_limited(said, _ENVOY_LABELS, ("latency", *_TOKENS)))
    said.labels["operation"] = "chat"
    return _counted(said._replace(event_id=""))


def _envoy(said: Told) -> dict[str, Any]:
    request = said.event_id
    said = _envoy_carried(said)
    labels, steps = said.labels, said.steps
    return {
        "start_time": _time(said.at),
        "response_code": 429 if "error_type" in labels else 200,
        "method": "POST",
        "x-envoy-origin-path": "/v1/chat/completions",
        "x-request-id": request or "-",
        "duration": said.in_units().get("latency_ms", "-"),
        "service.name": labels["service"],
        "tenant.id": labels.get("tenant", "-"),
        "trace_id": said.trace_id,
        "gen_ai.response.model": labels.get("model"),
        "gen_ai.provider.name": "ns/openai-1/route" if "provider" in labels else None,
        "gen_ai.usage.input_tokens": steps.get("prompt_tokens", "-"),
        "gen_ai.usage.output_tokens": steps.get("completion_tokens", "-"),
        "gen_ai.usage.cache_read.input_tokens": steps.get("cached_tokens"),
        "gen_ai.usage.cache_write.input_tokens": steps.get("cache_write_tokens"),
        "gen_ai.usage.reasoning.output_tokens": steps.get("reasoning_tokens"),
    }


def _amid_envoy(said: Sequence[Told]) -> list[Any]:
    """Requests of no model, and each line twice."""
    other = {"start_time": "2025-03-03T00:00:00Z", "response_code": 200, "x-envoy-origin-path": "/healthz"}
    return [line for one in map(_envoy, said) for line in (other, one, one)]


# The Rust LLM-Sentinel's

_EARLIER_LABELS: Final = {
    "model": _as_sent, "operation": vocabulary.operation, "provider": vocabulary.provider, "tenant": _as_sent,
    "region": _as_sent, "finish_reason": vocabulary.finish_reason, "error_type": _always("timeout"),
}  # fmt: skip


def _earlier_carried(said: Told) -> Told:
    said = _limited(said, _EARLIER_LABELS, ("latency", "prompt_tokens", "completion_tokens", "cost"))
    return _counted(said) if "error_type" in said.labels else said


def _earlier(said: Told) -> dict[str, Any]:
    said = _earlier_carried(said)
    names = {"service": "service_name", "model": "model_name"}
    flat = {names.get(n, n): t for n, t in said.labels.items() if n not in ("tenant", "region", "error_type")}
    metadata = {name: said.labels[name] for name in ("tenant", "region") if name in said.labels}
    return {
        **flat,
        **said.in_units(),
        "timestamp": _time(said.at),
        "event_id": said.event_id,
        "trace_id": said.trace_id,
        "metadata": metadata,
        "errors": [{"type": "RequestTimeout"}] if "error_type" in said.labels else [],
        "model_name": said.labels.get("model", ""),
    }


# Somebody's own

MAPPING: Final = MappingConfig.model_validate(
    {
        "timestamp": "began",
        "service": ["app.name", "=nobody"],
        **{label: f"labels.{label}" for label in SENT_LABELS if label != "service"},
        "latency_ms": {"path": "took_us", "unit": "us"},
        "ttft_ms": {"path": "first_s", "unit": "s"},
        "cost_usd": {"path": "cost.cents", "unit": "cents"},
        "quality_score": "score",
        **{name: f"usage[{i}].count" for i, name in enumerate(_TOKENS)},
        "event_id": "ids.call",
        "trace_id": "ids.trace",
    }
)


def _mapped_carried(said: Told) -> Told:
    return _limited(said, dict.fromkeys(SENT_LABELS, _as_sent), ("latency", "ttft", "cost", "quality", *_TOKENS))


def _mapped(said: Told) -> dict[str, Any]:
    said = _mapped_carried(said)
    values = said.in_units()
    return {
        "began": _time(said.at),
        "app": {"name": said.labels["service"]},
        "labels": {name: told for name, told in said.labels.items() if name != "service"},
        "took_us": said.steps.get("latency"),
        "first_s": values["ttft_ms"] / 1_000 if "ttft" in said.steps else None,
        "cost": {"cents": values["cost_usd"] * 100} if "cost" in said.steps else None,
        "score": values.get("quality_score"),
        "usage": [{"count": said.steps.get(name)} for name in _TOKENS],
        "ids": {"call": said.event_id, "trace": said.trace_id},
    }


Record = Callable[[Sequence[Told]], bytes]


def _array(of: Callable[[Told], dict[str, Any]]) -> Record:
    return lambda said: json.dumps([of(one) for one in said]).encode()


def _alone(of: Callable[[Told], dict[str, Any]]) -> Callable[[Told], bytes]:
    return lambda said: json.dumps(of(said)).encode()


_JSON: Final = {"litellm": _litellm, "kong": _kong, "envoy": _envoy, "earlier": _earlier, MAPPED: _mapped}

TREES: Final[dict[str, Callable[[Sequence[Told]], Any]]] = {
    "otlp_json": lambda said: otlp.as_json(_spans(said)),
    **{name: lambda said, of=of: [of(one) for one in said] for name, of in _JSON.items()},  # type: ignore[misc]
}
"""For each translated format in JSON: a record of these calls, parsed."""

TOGETHER: Final[dict[str, Record]] = {
    "otlp_proto": lambda said: otlp.as_proto(_spans(said)),
    "otlp_json": lambda said: otlp.json_text(_spans(said)),
    **{name: _array(of) for name, of in _JSON.items()},
}
"""For each translated format: one record of these calls, each of which begins at a time of its own."""

AMID: Final[dict[str, Record]] = {
    "otlp_proto": lambda said: otlp.as_proto(_amid_spans(said)),
    "otlp_json": lambda said: otlp.json_text(_amid_spans(said)),
    "litellm": lambda said: json.dumps(_amid_litellm(said)).encode(),
    "kong": lambda said: json.dumps(_amid_kong(said)).encode(),
    "envoy": lambda said: json.dumps(_amid_envoy(said)).encode(),
    "earlier": lambda said: json.dumps([_earlier(one) for one in said for _ in range(2)]).encode(),
    MAPPED: lambda said: json.dumps([_mapped(one) for one in said for _ in range(2)]).encode(),
}
"""As `TOGETHER`, with each call told again and what is no call between them, as far as the format has either."""

PLAIN: Final[dict[str, Callable[[Told], bytes]]] = {
    "otlp_proto": lambda said: TOGETHER["otlp_proto"]([said]),
    "otlp_json": lambda said: TOGETHER["otlp_json"]([said]),
    **{name: _alone(of) for name, of in _JSON.items()},
}
"""For each translated format: the encoder of a plain record."""

CARRIED: Final[dict[str, Callable[[Told], Told]]] = {
    "otlp_proto": _otlp_carried, "otlp_json": _otlp_carried, "litellm": _litellm_carried, "kong": _kong_carried,
    "envoy": _envoy_carried, "earlier": _earlier_carried, MAPPED: _mapped_carried,
}  # fmt: skip
"""For each translated format: what its records tell of a call."""

_SOUND: Final = Told(1_740_960_000_000_000, {"service": "chat", "model": "gpt-4o"}, {"prompt_tokens": 5}, "e1", "t1")


def _of(name: str, **changed: Any) -> bytes:
    """A plain record with another content."""
    labels, steps = changed.get("labels", {}), changed.get("steps", {})
    said = _SOUND._replace(
        at=changed.get("at", _SOUND.at), labels={**_SOUND.labels, **labels}, steps={**_SOUND.steps, **steps}
    )
    return PLAIN[name](said)


def _wrong_type(name: str) -> bytes:
    return (
        _of(name, labels={"model": "MODEL"})
        .replace(b'{"stringValue": "MODEL"}', b'{"kvlistValue": {"values": [{"key": "a"}]}}')
        .replace(b'"MODEL"', b'{"a": 1}')
    )


def _faulty(name: str) -> dict[str, list[bytes]]:
    """What all formats in JSON refuse."""
    sound = PLAIN[name](_SOUND)
    end = b"}" if name == "otlp_json" else b"]"
    return {
        Reason.RECORD_TOO_LARGE: [sound + b" " * 5_000, b"x" * 5_000],
        Reason.NOT_JSON: [b"", b"{oops", sound[:-1], sound.replace(b"gpt-4o", b"\xff"), b"[" * 1_900],
        Reason.NOT_AN_OBJECT: [b"5", b"null", b'"text"'],
        Reason.MISSING_FIELD: [b'{"a":1}'],
        Reason.WRONG_TYPE: [_wrong_type(name)],
        Reason.BAD_NUMBER: [PLAIN[name](late_by(_SOUND, -1_000)), _of(name, steps={"prompt_tokens": 10**12})],
        Reason.BAD_TIME: [_of(name, at=5_000)],
        Reason.STRING_TOO_LONG: [_of(name, labels={"model": "x" * 41})],
        Reason.TOO_MANY_CALLS: [_MANY[end]],
    }


_MANY: Final = {
    b"]": b"[" + b"{}," * 10_000 + b"{}]",
    b"}": b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + b"{}," * 20_000 + b"{}]}]}]}",
}

FAULTY: Final[dict[str, dict[str, list[bytes]]]] = {
    **{name: _faulty(name) for name in TREES},
    "otlp_proto": {
        Reason.RECORD_TOO_LARGE: [_of("otlp_proto", labels={"tenant": "x" * 5_000}), b"x" * 5_000],
        Reason.NOT_OTLP: [b"\n", b"\n\x05abcde", PLAIN["otlp_proto"](_SOUND)[:-1]],
        Reason.WRONG_TYPE: [otlp.as_proto([otlp.Plain({"gen_ai.operation.name": "chat", "model": {"a": 1}})])],
        Reason.BAD_NUMBER: [
            PLAIN["otlp_proto"](late_by(_SOUND, -1_000)), _of("otlp_proto", steps={"prompt_tokens": 10**12}),
        ],
        Reason.BAD_TIME: [_of("otlp_proto", at=5_000)],
        Reason.STRING_TOO_LONG: [_of("otlp_proto", labels={"model": "x" * 41})],
        Reason.TOO_MANY_CALLS: [
            otlp.as_proto([otlp.Plain({"gen_ai.operation.name": "chat"}, f"{i:016x}", start=i) for i in range(10_001)])
        ],
    },
}  # fmt: skip
"""For each translated format, by reason: records of one fault under the limits of the laws."""
