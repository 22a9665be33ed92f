"""The simulated fleet: models with their speed and price, services with their tenants, as tables.

All names, prices and speeds are made up. A combination is one (service, tenant, model, operation); every event belongs
to one, and `Fleet` holds the combinations and their properties as arrays of length K.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from connectors.simulation.config import KindName
from connectors.simulation.incidents import KINDS

Floats = NDArray[np.float64]


class Model(NamedTuple):
    """The behaviour and the prices of one model; prices in USD for a million tokens."""

    provider: str
    operation: str
    ttft_ms: float  # time to first token of an empty prompt
    prefill_ms: float  # added by each prompt token
    tokens_per_s: float  # decode speed; 0: nothing is decoded (embeddings)
    errors: float  # share of calls that fail
    quality: float  # mean quality score
    price_in: float
    price_out: float
    reasoning: float  # reasoning tokens to one completion token


MODELS: Final[dict[str, Model]] = {
    "north-mini": Model("northwind", "chat", 180, 0.05, 110, 0.004, 0.78, 0.10, 0.40, 0),
    "north-large": Model("northwind", "chat", 420, 0.20, 45, 0.006, 0.90, 2.50, 10.0, 0),
    "helios-flash": Model("helios", "chat", 260, 0.10, 75, 0.005, 0.84, 0.40, 1.60, 0),
    "helios-pro": Model("helios", "chat", 700, 0.35, 28, 0.006, 0.92, 15.0, 60.0, 1.5),
    "north-embed": Model("northwind", "embeddings", 35, 0.02, 0, 0.003, 0, 0.02, 0, 0),
}


class Service(NamedTuple):
    """One application: its share of the traffic, its tenants, the models that it calls, and the length of its texts."""

    share: float
    tenants: tuple[str, ...]  # by falling volume
    models: dict[str, float]  # share of the service's calls; 0: only an incident moves calls there
    prompt: tuple[float, float]  # median and sigma of the log-normal
    completion: tuple[float, float]
    max_tokens: int  # completions end here with finish_reason "length"
    cached: float  # mean share of the prompt that is read from the provider's cache
    tools: float  # share of answers that end in a tool call
    day: float  # swing of the rate over the day: 0 is flat, 1 is silent at night
    peak_hour: float
    weekend: float  # the rate at a weekend, as a share of a weekday's


SERVICES: Final[dict[str, Service]] = {
    "chat-assistant": Service(
        0.34, ("acme", "globex", "initech", "umbrella", "hooli"),
        {"north-mini": 0.50, "helios-flash": 0.35, "north-large": 0.15},
        (420, 0.9), (160, 0.9), 1024, 0.30, 0.0, 0.40, 15, 0.70,
    ),
    "rag-search": Service(
        0.28, ("acme", "stark", "wayne", "cyberdyne", "soylent"),
        {"helios-flash": 0.50, "north-embed": 0.50},
        (1900, 0.6), (110, 0.8), 512, 0.20, 0.0, 0.38, 14, 0.65,
    ),
    "code-helper": Service(
        0.18, ("initech", "tyrell", "massive", "oscorp"),
        {"north-large": 0.65, "helios-flash": 0.35},
        (1500, 0.9), (170, 0.9), 2048, 0.50, 0.10, 0.45, 16, 0.40,
    ),
    "doc-extraction": Service(
        0.12, ("vandelay", "wonka", "duff"),
        {"north-mini": 0.90, "north-large": 0.10},
        (3200, 0.7), (90, 0.8), 1024, 0.10, 0.0, 0.15, 11, 0.50,
    ),
    "agent-runtime": Service(
        0.08, ("stark", "tyrell", "gringotts"),
        {"north-large": 0.80, "helios-pro": 0.20},
        (2600, 0.8), (220, 0.7), 4096, 0.55, 0.55, 0.30, 15, 0.75,
    ),
}  # fmt: skip

TENANTS: Final = tuple(dict.fromkeys(t for s in SERVICES.values() for t in s.tenants))
BURSTS: Final = (30.0, 0.4, 3.0, 0.25, 12.0, 1.0)
"""The shape of the Gamma factor on a tenant's rate, for the tenants in turn; a small one is bursty."""
LENGTHS: Final = (1.0, 0.6, 1.6, 0.8, 1.25, 0.5, 2.0)
"""The factor on a tenant's prompt length, for the tenants in turn."""
REGIONS: Final = {"us-east": 1.0, "eu-west": 1.06, "ap-south": 1.18}
"""The regions with the factor on their latency; each tenant lives in one."""

_LEAST_SHARE: Final = 0.03
"""The least share of the traffic at which an incident shows."""

_MOST_ABUSED: Final = 0.1
"""The share of the traffic from which a tenant is no candidate for a flood of its rate, which would drown the rest."""

DEARER: Final = "north-large"
"""The model that a cost surge moves calls to."""

ERRORS: Final = {
    "rate_limit": 0.35,
    "timeout": 0.25,
    "server_error": 0.25,
    "content_filter": 0.10,
    "context_length": 0.05,
}
"""The types of errors with their share of the usual errors."""


class Fleet:
    """The combinations as arrays of length K, in a fixed order; `fragment` is the JSON text of their labels."""

    def __init__(self) -> None:
        services, tenants, models = list(SERVICES), list(TENANTS), list(MODELS)
        regions = list(REGIONS)
        rows: list[tuple[int, int, int, float]] = []
        for s, service in enumerate(SERVICES.values()):
            zipf = 1 / np.arange(1, len(service.tenants) + 1)
            for t, tenant_share in zip(service.tenants, zipf / zipf.sum(), strict=True):
                for m, share in service.models.items():
                    weight = service.share * float(tenant_share) * share
                    rows.append((s, tenants.index(t), models.index(m), weight))
        self.services, self.tenants, self.models = services, tenants, models
        self.service = np.array([r[0] for r in rows])
        self.tenant = np.array([r[1] for r in rows])
        self.model = np.array([r[2] for r in rows])
        self.weight: Floats = np.array([r[3] for r in rows])
        self.region = self.tenant % len(regions)
        self.slow: Floats = np.array(list(REGIONS.values()))[self.region]
        used, apps = [MODELS[models[r[2]]] for r in rows], [SERVICES[services[r[0]]] for r in rows]
        self.chat = np.array([m.tokens_per_s > 0 for m in used])
        self.ttft: Floats = np.array([m.ttft_ms for m in used])
        self.prefill: Floats = np.array([m.prefill_ms for m in used])
        self.decode_ms: Floats = np.array([1000 / m.tokens_per_s if m.tokens_per_s else 0.0 for m in used])
        self.errors: Floats = np.array([m.errors for m in used])
        self.quality: Floats = np.array([m.quality for m in used])
        self.price_in: Floats = np.array([m.price_in for m in used])
        self.price_out: Floats = np.array([m.price_out for m in used])
        self.reasoning: Floats = np.array([m.reasoning for m in used])
        self.prompt: Floats = np.array([a.prompt for a in apps]).T
        self.completion: Floats = np.array([a.completion for a in apps]).T
        self.max_tokens = np.array([a.max_tokens for a in apps])
        self.cached: Floats = np.array([a.cached for a in apps])
        self.tools: Floats = np.array([a.tools for a in apps])
        self.prompt[0] *= np.array([LENGTHS[r[1] % len(LENGTHS)] for r in rows])
        self.burst: Floats = np.array([BURSTS[t % len(BURSTS)] for t in range(len(tenants))])
        self.weekend: Floats = np.array([a.weekend for a in SERVICES.values()])
        self.day: Floats = np.array([a.day for a in SERVICES.values()])
        self.peak: Floats = np.array([a.peak_hour for a in SERVICES.values()])
        # A cost surge moves a call to the same caller's combination with the dearer model, if there is one.
        same = {(r[0], r[1]): k for k, r in enumerate(rows) if models[r[2]] == DEARER}
        self.dearer = np.array([same.get((r[0], r[1]), k) if self.chat[k] else k for k, r in enumerate(rows)])
        self.fragment = [
            f'"service":"{services[s]}","model":"{models[m]}","provider":"{MODELS[models[m]].provider}",'
            f'"operation":"{MODELS[models[m]].operation}","tenant":"{tenants[t]}",'
            f'"region":"{regions[t % len(regions)]}"'
            for s, t, m, _ in rows
        ]

    def candidates(self) -> dict[KindName, dict[str, list[str]]]:
        """For each kind of incident and each label, the values with enough traffic that the kind shows there."""
        names = {"service": self.services, "model": self.models, "tenant": self.tenants}
        answers = self.chat & (self.weight > 0)
        shows = {"completion_collapse": answers, "quality_degradation": answers}
        shows |= {"tenant_quality_drop": answers, "stuck_stream": answers, "model_update": answers}
        out: dict[KindName, dict[str, list[str]]] = {}
        for kind in KINDS:
            weight = np.where(shows.get(kind, True), self.weight, 0)
            out[kind] = {
                label: [v for v in values if (weight * self.mask({label: v})).sum() >= _LEAST_SHARE]
                for label, values in names.items()
            }
        abused = out["tenant_abuse"]
        abused["tenant"] = [t for t in abused["tenant"] if self.weight[self.mask({"tenant": t})].sum() < _MOST_ABUSED]
        moves = self.weight * (self.dearer != np.arange(len(self.weight)))
        out["cost_surge"]["service"] = [
            v for v in self.services if 2 * moves[m := self.mask({"service": v})].sum() > self.weight[m].sum()
        ]
        return out

    def mask(self, entity: dict[str, str]) -> NDArray[np.bool_]:
        """Which combinations have all these label values; keys are service, model, tenant."""
        columns = {
            "service": (self.services, self.service),
            "model": (self.models, self.model),
            "tenant": (self.tenants, self.tenant),
        }
        found = np.ones(len(self.weight), bool)
        for label, value in entity.items():
            names, column = columns[label]
            found &= column == names.index(value)
        return found
