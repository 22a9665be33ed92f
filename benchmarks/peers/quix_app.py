"""The job on Quix Streams, written as its documentation shows; runs in an environment of its own.

    python quix_app.py reduce|agg|grouped BROKER TOPIC PANES ALERTS STATE_FOLDER IDLE_S

It writes panes of 10 s in event time to one topic, and alerts by a running z-score of each pane's mean latency, with
keyed state, to another. `agg` has an aggregation for each field, `reduce` one function for all fields. `grouped` is
`agg` on a topic whose keys are not the series: `group_by` sends every record through a topic first. Quix Streams does
not know the end of a topic: it ends when nothing has come for IDLE_S seconds.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import quixstreams.dataframe.windows.aggregations as agg
from quixstreams import Application, State

WARM_PANES = 5
LIMIT = 3.0

Values = dict[str, Any]


def marked(event: Values) -> Values:
    """The event with a number for its failure, and without the latency if it failed."""
    failed = event["status"] != "ok"
    event["failed"] = int(failed)
    if failed:
        event["latency_ms"] = None
    return event


def first(event: Values) -> Values:
    """The pane of one event."""
    return {
        "requests": 1,
        "errors": event["failed"],
        "latency_sum": event["latency_ms"] or 0.0,
        "latency_min": event["latency_ms"],
        "latency_max": event["latency_ms"],
        "prompt_tokens": event["prompt_tokens"],
        "completion_tokens": event["completion_tokens"],
        "cost_usd": event["cost_usd"],
    }


def further(pane: Values, event: Values) -> Values:
    """The pane with one more event."""
    latency = event["latency_ms"]
    pane["requests"] += 1
    pane["prompt_tokens"] += event["prompt_tokens"]
    pane["completion_tokens"] += event["completion_tokens"]
    pane["cost_usd"] += event["cost_usd"]
    if latency is None:
        pane["errors"] += 1
    elif pane["latency_min"] is None:
        pane["latency_sum"] = pane["latency_min"] = pane["latency_max"] = latency
    else:
        pane["latency_sum"] += latency
        pane["latency_min"] = min(pane["latency_min"], latency)
        pane["latency_max"] = max(pane["latency_max"], latency)
    return pane


def judge(pane: Values, state: State) -> Values | None:
    """An alert if the mean latency is far from the earlier ones (Welford's mean and variance)."""
    succeeded = pane["requests"] - pane["errors"]
    if not succeeded:
        return None
    number, mean, squares = state.get("seen", default=(0, 0.0, 0.0))
    observed = pane["latency_sum"] / succeeded
    deviation = (squares / (number - 1)) ** 0.5 if number > 1 else 0.0
    z = (observed - mean) / deviation if deviation > 0 else 0.0
    delta = observed - mean
    mean += delta / (number + 1)
    state.set("seen", (number + 1, mean, squares + delta * (observed - mean)))
    if number >= WARM_PANES and abs(z) > LIMIT:
        return {"pane_ms": pane["start"], "observed": observed, "z": z}
    return None


def main(way: str, broker: str, telemetry: str, panes: str, alerts: str, state_folder: str, idle_s: str) -> None:
    """Run until the topic is read."""
    app = Application(
        broker_address=broker,
        consumer_group=panes,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=10.0,
        state_dir=state_folder,
    )
    events = app.dataframe(app.topic(telemetry, key_deserializer="str", value_deserializer="json")).apply(marked)
    if way == "grouped":
        events = events.group_by(lambda event: f"{event['service']}|{event['model']}", name="series")
    windows = events.tumbling_window(duration_ms=timedelta(seconds=10), grace_ms=timedelta(seconds=10))
    if way == "reduce":
        closed = windows.reduce(further, first).final(closing_strategy="partition")
        closed = closed.apply(lambda pane: {"start": pane["start"], **pane["value"]})
    else:
        # After group_by one partition has records of several, out of order, so each key closes by its own records.
        closed = windows.agg(
            requests=agg.Count(),
            errors=agg.Sum("failed"),
            latency_sum=agg.Sum("latency_ms"),
            latency_min=agg.Min("latency_ms"),
            latency_max=agg.Max("latency_ms"),
            prompt_tokens=agg.Sum("prompt_tokens"),
            completion_tokens=agg.Sum("completion_tokens"),
            cost_usd=agg.Sum("cost_usd"),
        ).final(closing_strategy="key" if way == "grouped" else "partition")
    closed.to_topic(app.topic(panes, key_serializer="str", value_serializer="json"))
    judged = closed.apply(judge, stateful=True).filter(lambda alert: alert is not None)
    judged.to_topic(app.topic(alerts, key_serializer="str", value_serializer="json"))
    app.run(timeout=float(idle_s), collect=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
