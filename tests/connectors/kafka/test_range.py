"""A range of a topic: between offsets or times, finished at its end, without a trace on the brokers."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from connectors.base import Chunk, State
from connectors.kafka.config import KafkaConfig
from connectors.kafka.range import Address, KafkaRange, Mark, RangeReader, parse_address
from operators.errors import ConfigError
from tests.brokers import Broker, create_topic, produce

T0 = 1_741_046_400_000  # 2025-03-04T00:00:00Z, in milliseconds
SECRET = {"sasl.password": "hidden"}


def test_an_address_names_brokers_topic_and_bounds() -> None:
    assert parse_address("kafka://a:1,b:2/t") == Address("a:1,b:2", "t")
    both = parse_address("kafka://a:1/t?from=7&to=2025-03-04T00:00:00Z")
    assert (both.start, both.stop) == (Mark(offset=7), Mark(time=T0 * 1000))
    assert parse_address("kafka://a:1/t?from=2025-03-04T01:00:00+01:00").start == Mark(time=T0 * 1000)


@pytest.mark.parametrize(
    "text", ["kafka://a:1", "kafka:///t", "kafka://a:1/t/u", "kafka://a:1/t?from=", "kafka://a/t?x=1"]
)
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_address(text)


def test_everything_but_the_address_stays_as_configured() -> None:
    config = KafkaConfig.model_validate({"options": SECRET, "group_id": "ours"})
    source = KafkaRange(config, Address("a:1", "t"))
    inner = source._source._config
    assert inner.options == config.options and inner.group_id == "ours"
    assert (inner.brokers, inner.topics, inner.stop_at_end) == ("a:1", ("t",), True)
    assert source.origin("t/3") == ("t", 3)


@dataclass
class Feed:
    """Records with these offsets, five for each poll, then the end; a missing offset is a transaction marker."""

    offsets: list[int] = field(default_factory=lambda: list(range(10)))
    told: list[int] = field(default_factory=list)
    at: int = 0

    def poll(self, most: int) -> Chunk:
        part = self.offsets[self.at : self.at + 5]
        self.at += len(part)
        values = [b"%d" % offset for offset in part]
        array = np.array(part, np.int64)
        return Chunk(values, array, array * 1_000_000, finished=self.at == len(self.offsets))

    def position(self) -> int:
        return self.offsets[self.at] if self.at < len(self.offsets) else self.offsets[-1] + 1

    def behind(self) -> None: ...

    def log(self) -> State:
        return ()

    def durable(self, position: int) -> None:
        self.told.append(position)

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("stop", "last"),
    [(None, 9), (Mark(offset=3), 2), (Mark(offset=5), 4), (Mark(offset=99), 9), (Mark(time=7_000_000), 6)],
)
def test_it_is_finished_at_its_stop(stop: Mark | None, last: int) -> None:
    feed = Feed()
    reader = RangeReader(feed, stop)
    values: list[bytes] = []
    while True:
        chunk = reader.poll(5)
        assert len(chunk.values) == len(chunk.offsets)
        values += chunk.values
        if chunk.finished:
            break
    assert values == [b"%d" % i for i in range(last + 1)]
    assert reader.position() == last + 1
    if stop is not None and last < 9:
        assert reader.poll(5).finished and not reader.poll(5).values
    reader.durable(5)
    assert feed.told == []


def test_records_before_its_start_are_left_out() -> None:
    reader = RangeReader(Feed(), Mark(offset=8), start=7)
    chunks = [reader.poll(5), reader.poll(5)]
    assert [v for chunk in chunks for v in chunk.values] == [b"7"] and chunks[1].finished
    assert all(len(c.values) == len(c.offsets) for c in chunks)


def test_a_stop_within_a_gap_is_met() -> None:
    reader = RangeReader(Feed([0, 1, 2, 3, 4, 8, 9]), Mark(offset=6))
    assert [len(reader.poll(5).values) for _ in range(2)] == [5, 0]
    assert reader.poll(5).finished


def read(source: KafkaRange) -> dict[str, list[bytes]]:
    out = {}
    for partition in source.partitions():
        reader = source.open(partition, None)
        values: list[bytes] = []
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            chunk = reader.poll(100)
            values += chunk.values
            if chunk.finished:
                break
        assert chunk.finished
        reader.close()
        out[partition] = values
    return out


def test_parts_of_a_real_topic(tansu: Broker) -> None:
    create_topic(tansu, "recorded", 2)
    for partition in (0, 1):
        values = [b"%d-%d" % (partition, i) for i in range(20)]
        produce(tansu, "recorded", values, partition, [T0 + i * 1_000 for i in range(20)])
    base = f"kafka://{tansu.address}/recorded"

    def found(query: str) -> dict[str, list[int]]:
        parts = read(KafkaRange(KafkaConfig(), parse_address(base + query)))
        return {p: [int(v.split(b"-")[1]) for v in values] for p, values in parts.items()}

    everything = list(range(20))
    assert found("") == {"recorded/0": everything, "recorded/1": everything}
    assert found("?from=5&to=8") == {"recorded/0": [5, 6, 7], "recorded/1": [5, 6, 7]}
    assert found("?from=15") == {"recorded/0": [15, 16, 17, 18, 19], "recorded/1": [15, 16, 17, 18, 19]}
    assert found("?from=900") == {"recorded/0": [], "recorded/1": []}
    times = "?from=2025-03-04T00:00:03Z&to=2025-03-04T00:00:06Z"
    assert found(times) == {"recorded/0": [3, 4, 5], "recorded/1": [3, 4, 5]}
