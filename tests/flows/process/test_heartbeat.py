"""A heartbeat is sent only if the source was polled since the last one and no pane has waited too long to close."""

from __future__ import annotations

import orjson
import pytest

from flows import __version__
from flows.process.heartbeat import Pulse, patience_s
from operators.config import TimeConfig
from operators.model import SECOND


def test_a_heartbeat_says_how_far_the_process_is() -> None:
    pulse = Pulse(1, 3, lambda: 1_700_000_000 * SECOND, 80)
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
    assert pulse.say() is None, "records and alerts alone make no heartbeat"
    pulse.turned()
    second = orjson.loads(pulse.say() or b"")
    assert (second["sequence"], second["partitions"], second["records"], second["alerts"]) == (1, ["t/0", "t/1"], 12, 1)
    assert second["watermark"] is None, "t/1 has no watermark yet"
    pulse.polled("t/1", 6, 10 * SECOND)
    pulse.turned()
    assert orjson.loads(pulse.say() or b"")["watermark"] == "1970-01-01T00:00:10.000Z"


class Shards:
    """A pulse of a process that polls its source all the time, on a clock that is set by hand."""

    def __init__(self) -> None:
        self.at = 0.0
        self.pulse = Pulse(0, 1, lambda: 0, 80, lambda: self.at)

    def beats(self) -> bool:
        self.pulse.turned()
        return self.pulse.say() is not None


def test_it_goes_on_while_no_pane_waits_to_close() -> None:
    shards = Shards()
    assert shards.beats(), "a process may have no shard"
    for closed, newest in ((None, None), (10, 10), (30, 10)):
        shards.pulse.reached(0, closed, newest)
        shards.at += 1_000
        assert shards.beats()


def test_a_backlog_far_behind_the_foremost_partition_moves_and_beats() -> None:
    shards = Shards()
    for closed in range(100):
        shards.pulse.reached(0, closed, 10_000)
        shards.at += 79
        assert shards.beats()


@pytest.mark.parametrize("closed", [None, 10])
def test_panes_that_wait_and_do_not_close_stop_it_until_they_do(closed: int | None) -> None:
    shards = Shards()
    shards.pulse.reached(1, 50, 50)
    shards.pulse.reached(0, closed, 20)
    shards.at = 80
    shards.pulse.reached(0, closed, 500)
    assert shards.beats()
    shards.at = 81
    assert not shards.beats()
    shards.at = 10_000
    assert not shards.beats(), "a stuck shard beats again although no batch came"
    shards.pulse.reached(0, 20, 500)
    assert shards.beats()
    shards.at = 10_081
    assert not shards.beats()
    shards.pulse.reached(0, 500, 500)
    shards.at = 20_000
    assert shards.beats()


def test_it_waits_for_longer_than_the_idle_timeout() -> None:
    assert patience_s(TimeConfig()) == 80
    assert patience_s(TimeConfig(idle_s=600, pane_s=60)) > 600 + 60
