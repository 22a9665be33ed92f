"""A heartbeat is said only where the source was polled since the last one."""

from __future__ import annotations

import orjson

from flows import __version__
from flows.heartbeat import Pulse
from operators.model import SECOND


def test_a_heartbeat_says_how_far_the_process_is() -> None:
    pulse = Pulse(1, 3, lambda: 1_700_000_000 * SECOND)
    assert pulse.say() is None
    pulse.turned()
    first = orjson.loads(pulse.say() or b"")
    assert first == {
        "schema": "llm-sentinel.heartbeat/1", "sequence": 0, "at": "2023-11-14T22:13:20.000Z", "process": 1,
        "processes": 3, "version": __version__, "watermark": None, "partitions": [], "records": 0, "alerts": 0,
    }  # fmt: skip
    assert pulse.say() is None
    pulse.polled("t/1", 5, None)
    pulse.polled("t/0", 7, 20 * SECOND)
    pulse.alerted()
    assert pulse.say() is None, "alerts alone are no progress of the source"
    pulse.turned()
    second = orjson.loads(pulse.say() or b"")
    assert (second["sequence"], second["partitions"], second["records"], second["alerts"]) == (1, ["t/0", "t/1"], 12, 1)
    assert second["watermark"] is None, "t/1 has none yet"
    pulse.polled("t/1", 6, 10 * SECOND)
    pulse.turned()
    assert orjson.loads(pulse.say() or b"")["watermark"] == "1970-01-01T00:00:10.000Z"
