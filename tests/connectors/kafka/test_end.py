"""The known end of a partition, from the statistics of the client."""

from __future__ import annotations

import time
from typing import Any, cast

import orjson
import pytest
from confluent_kafka import Consumer, TopicPartition

from connectors.kafka.end import LogEnd


class Client:
    """A consumer that remembers the high watermark `high`; asked for it, the broker answers 5 more."""

    def __init__(self, high: int = 10) -> None:
        self.high = high
        self.asked = 0

    def get_watermark_offsets(self, place: TopicPartition, timeout: float = 0, cached: bool = False) -> tuple[int, int]:
        self.asked += not cached
        return (0, self.high if cached else self.high + 5)


def client(high: int = 10) -> Consumer:
    return cast("Consumer", Client(high))


def statistics(fetched_from: int, **rxidle: float) -> str:
    """Statistics with the seconds since each broker's last answer; `leader` is node 1, `other` 2, `group` has no id."""
    numbers = {"leader": 1, "other": 2, "group": -1}
    brokers: dict[str, Any] = {
        name: {"nodeid": numbers[name], "state": "UP", "rxidle": round(idle * 1e6)} for name, idle in rxidle.items()
    }
    topics = {"t": {"partitions": {"3": {"broker": fetched_from}}}}
    return orjson.dumps({"ts": round(time.monotonic() * 1e6), "topics": topics, "brokers": brokers}).decode()


@pytest.mark.parametrize(
    ("fetched_from", "rxidle", "known"),
    [
        (1, {"leader": 0.4, "other": 30}, True),
        (1, {"leader": 30, "other": 0.1, "group": 0.1}, False),
        (-1, {"leader": 30, "group": 0.1}, False),
        (1, {"leader": -1e-6}, False),
    ],
    ids=["answers", "silent", "without a leader", "just connected"],
)
def test_the_end_is_known_while_the_leader_answers(fetched_from: int, rxidle: dict[str, float], known: bool) -> None:
    end = LogEnd("t", 3)
    end.on_statistics(statistics(fetched_from, **rxidle))
    assert end.stands_at(client(), 10) == known
    assert not end.stands_at(client(), 9)


def test_a_poll_is_an_answer_and_a_seek_forgets_it() -> None:
    end = LogEnd("t", 3)
    assert not end.stands_at(client(), 10)
    end.polled(something=False)
    assert not end.stands_at(client(), 10)
    end.polled(something=True)
    assert end.stands_at(client(), 10) and not end.stands_at(client(-1001), 10)
    end.forget()
    assert not end.stands_at(client(), 10)


def test_the_lag_is_asked_for_only_without_a_poll() -> None:
    end, polled = LogEnd("t", 3), Client()
    consumer = cast("Consumer", polled)
    end.polled(something=True)
    assert (end.behind(consumer, 4), polled.asked) == (6, 0)
    assert (end.behind(consumer, 4), polled.asked) == (11, 1)
    assert (end.behind(consumer, 4), polled.asked) == (11, 1), "the broker must not be asked again at once"
    end.polled(something=False)
    assert (end.behind(consumer, 4), polled.asked) == (6, 1)
    end.polled(something=False)
    assert end.behind(client(-1001), 4) is None


def test_after_a_fetch_that_failed_no_end_is_known() -> None:
    """The client then reports -1 while it still holds records of the previous fetch; -1 is not their end."""
    end = LogEnd("t", 3)
    end.on_statistics(statistics(1, leader=0.4))
    assert (end.high(client(-1)), end.after(client(-1), 4), end.stands_at(client(-1), 0)) == (None, None, False)
    assert (end.after(client(10), 4), end.after(client(10), 9), end.after(client(3), 4)) == (10, 10, 5)
