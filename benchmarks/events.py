"""Makes telemetry as fast as a topic takes it: cheap records of many series, with given times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import orjson
from confluent_kafka import Producer

_VARIANTS = 4_000
_SLOW = b'"tenant":"t0","latency_ms":5000,"ttft_ms":900,"prompt_tokens":700,"completion_tokens":200,"status":"ok"}'


def _never(series: int, at_ms: int) -> bool:
    return False


class Events:
    """Records of `series` series, in turn. The metrics of a series vary from record to record and do not drift.

    The requests of a series take five seconds while `slow` is true for its number and the time.
    """

    def __init__(self, series: int, slow: Callable[[int, int], bool] = _never, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        self._series = series
        self._slow = slow
        latency = rng.lognormal(6, 0.25, _VARIANTS)
        self._tails = [
            orjson.dumps({
                "tenant": f"t{int(rng.integers(20))}",
                "latency_ms": round(float(ms), 1),
                "ttft_ms": round(float(ms) / 5, 1),
                "prompt_tokens": int(rng.integers(20, 3_000)),
                "completion_tokens": int(rng.integers(5, 800)),
                "cost_usd": round(float(rng.uniform(1e-4, 2e-2)), 6),
                "status": "error" if rng.random() < 0.01 else "ok",
                "trace_id": f"{int(rng.integers(1 << 62)):032x}",
            })[1:]
            for ms in latency
        ]  # fmt: skip
        self._number = 0

    def record(self, at_ms: int) -> bytes:
        """The next record, which begins at this time."""
        n = self._number
        self._number += 1
        head = b'{"timestamp":%d.%03d,"event_id":"b%d","service":"s%d","model":"m%d",'
        series = n % self._series
        tail = _SLOW if self._slow(series, at_ms) else self._tails[(n + n // self._series) % _VARIANTS]
        return head % (at_ms // 1000, at_ms % 1000, n, series // 4, series % 4) + tail


class Filler:
    """A producer that fills the partitions of a topic in turn."""

    def __init__(self, broker: str, topic: str, partitions: int) -> None:
        self._topic = topic
        self._partitions = partitions
        self._sent = 0
        self._producer = Producer({
            "bootstrap.servers": broker, "linger.ms": 20, "compression.type": "lz4",
            "queue.buffering.max.messages": 1_000_000,
        })  # fmt: skip

    def send(self, value: bytes) -> None:
        """Send a record; waits while the queue is full."""
        while True:
            try:
                self._producer.produce(self._topic, value, partition=self._sent % self._partitions)
                break
            except BufferError:
                self._producer.poll(0.05)
        self._sent += 1
        if self._sent % 1_000 == 0:
            self._producer.poll(0)

    def waiting(self) -> int:
        """The number of records that are not acknowledged yet."""
        return len(self._producer)

    def done(self) -> None:
        """Wait until all records are on the topic."""
        if self._producer.flush(300):
            raise SystemExit("the broker did not take all records")


def paced(rate: float, seconds: float, tick_s: float = 0.02) -> Iterator[int]:
    """The number of events that are due at each tick; sleeps in between, and catches up after a delay."""
    begin, sent = time.monotonic(), 0
    while (passed := time.monotonic() - begin) < seconds:
        due = round(passed * rate) - sent
        sent += due
        yield due
        time.sleep(max(0.0, tick_s - (time.monotonic() - begin - passed)))
