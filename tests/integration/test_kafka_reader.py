"""The Kafka reader on real brokers."""

from __future__ import annotations

import logging
import signal
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from connectors.base import Chunk
from connectors.kafka.config import KafkaConfig, Options
from connectors.kafka.reader import KafkaReader
from connectors.kafka.source import KafkaSource
from operators.errors import ConfigError, FatalError
from tests.brokers import Broker, create_topic, free_port, kafka_broker, produce, tansu_broker
from tests.waiting import wait_until


def config(broker: Broker, topic: str, **settings: Any) -> KafkaConfig:
    return KafkaConfig(brokers=broker.address, topics=(topic,), start_budget_s=10, **settings)


def new_topic(broker: Broker, partitions: int = 1) -> str:
    topic = f"t-{uuid4().hex[:8]}"
    create_topic(broker, topic, partitions)
    return topic


def read(reader: KafkaReader, most: int = 1000, until: int | None = None) -> list[Chunk]:
    """The chunks up to the end, or up to `until` records."""
    chunks: list[Chunk] = []
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        chunk = reader.poll(most)
        if chunk.values or chunk.skipped:
            chunks.append(chunk)
        if until is not None and sum(len(c.values) for c in chunks) >= until:
            return chunks
        if until is None and (chunk.at_end or chunk.finished):
            return chunks
        time.sleep(0.002)
    raise AssertionError(f"no end after {chunks}")


def values(chunks: list[Chunk]) -> list[bytes]:
    return [v for c in chunks for v in c.values]


def test_reads_in_order_and_resumes_from_any_position(broker: Broker) -> None:
    topic = new_topic(broker, 2)
    produce(broker, topic, [b"%d" % i for i in range(50)], 0, [1_700_000_000_000 + i for i in range(50)])
    produce(broker, topic, [b"other", None], 1)
    source = KafkaSource(config(broker, topic))
    assert source.partitions() == [f"{topic}/0", f"{topic}/1"]
    assert source.origin(f"{topic}/1") == (topic, 1)
    assert topic in source.identity()

    reader = source.open(f"{topic}/0", None)
    assert reader.position() == 0
    chunks = read(reader, most=7, until=21)
    assert values(chunks) == [b"%d" % i for i in range(21)]
    assert all(len(c.values) <= 7 for c in chunks)
    assert [int(o) for c in chunks for o in c.offsets] == list(range(21))
    assert chunks[0].arrivals is not None and int(chunks[0].arrivals[1]) == 1_700_000_000_001_000
    position = reader.position()
    assert position == 21
    reader.durable(position)
    reader.close()
    reader.durable(position)  # closed: must not raise

    again = source.open(f"{topic}/0", position)
    assert again.position() == position
    assert values(read(again)) == [b"%d" % i for i in range(21, 50)]
    assert again.poll(10).at_end
    produce(broker, topic, [b"later"], 0)
    assert values(read(again, until=1)) == [b"later"]
    again.close()

    tombstone = source.open(f"{topic}/1", None)
    assert values(read(tombstone)) == [b"other", b""]
    tombstone.close()


def test_how_many_records_are_left_is_known_without_asking(broker: Broker) -> None:
    topic = new_topic(broker)
    produce(broker, topic, [b"%d" % i for i in range(30)])
    reader = KafkaSource(config(broker, topic)).open(f"{topic}/0", None)
    for left in (20, 10, 0):
        read(reader, most=10, until=10)
        assert reader.behind() == left
    read(reader)
    produce(broker, topic, [b"more"] * 5)
    read(reader, most=2, until=4)
    left_now = reader.behind()
    assert left_now is not None and left_now <= 1  # records after the last fetch are not known yet
    read(reader)
    assert reader.behind() == 0
    reader.close()


def test_a_leader_that_does_not_answer_is_no_end(tmp_path: Path) -> None:
    """If the partition counted as idle, the clock would close panes of records that the leader still has."""
    broker = kafka_broker(tmp_path)
    broker.start()
    try:
        topic = new_topic(broker)
        produce(broker, topic, [b"1"])
        reader = KafkaSource(config(broker, topic)).open(f"{topic}/0", None)
        read(reader)
        broker.signal(signal.SIGSTOP)
        wait_until(lambda: not reader.poll(10).at_end, seconds=20)
        broker.signal(signal.SIGCONT)
        wait_until(lambda: reader.poll(10).at_end, seconds=20)
        reader.close()
    finally:
        broker.kill()


def test_the_offset_of_a_snapshot_is_committed_for_lag_tools(broker: Broker) -> None:
    topic = new_topic(broker)
    produce(broker, topic, [b"1", b"2", b"3"])
    reader = KafkaSource(config(broker, topic, group_id=topic)).open(f"{topic}/0", None)
    read(reader, until=3)
    reader.durable(2)
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": topic})
    try:
        deadline = time.monotonic() + 15
        while consumer.committed([TopicPartition(topic, 0)], timeout=5)[0].offset != 2:
            assert time.monotonic() < deadline
            reader.poll(1)
            time.sleep(0.05)
    finally:
        consumer.close()
        reader.close()


def test_the_start_is_resolved_once_and_is_an_offset_from_then_on(broker: Broker) -> None:
    topic = new_topic(broker)
    base = 1_700_000_000_000
    for i in range(6):  # one batch each: otherwise an index of batches would hide a wrong answer
        produce(broker, topic, [b"%d" % i], 0, [base + 1000 * i])

    def start(at: str | datetime) -> int:
        reader = KafkaSource(config(broker, topic, start=at)).open(f"{topic}/0", None)
        try:
            return reader.position()
        finally:
            reader.close()

    assert start("earliest") == 0
    assert start(datetime.fromtimestamp(base / 1000 + 2.5, UTC)) == 3
    assert start(datetime.fromtimestamp(base / 1000 + 3, UTC)) == 3
    assert start(datetime.fromtimestamp(base / 1000 + 99, UTC)) == 6
    assert start("latest") == 6

    reader = KafkaSource(config(broker, topic, start="latest")).open(f"{topic}/0", None)
    produce(broker, topic, [b"new"])
    assert values(read(reader, until=1)) == [b"new"]
    reader.close()


def test_stop_at_end_ends_where_the_end_was_at_the_start(broker: Broker) -> None:
    topic = new_topic(broker, 2)
    produce(broker, topic, [b"%d" % i for i in range(10)])
    source = KafkaSource(config(broker, topic, stop_at_end=True))
    reader = source.open(f"{topic}/0", None)
    first = read(reader, most=3, until=3)
    produce(broker, topic, [b"too late"] * 5)
    assert values(first + read(reader, most=3)) == [b"%d" % i for i in range(10)]
    last = reader.poll(100)
    assert last.finished and not last.values and reader.position() == 10
    reader.close()

    empty = source.open(f"{topic}/1", None)
    assert read(empty) == [] and empty.poll(1).finished
    empty.close()


def test_a_missing_topic_refuses_the_start(broker: Broker) -> None:
    with pytest.raises(ConfigError, match=rf"nosuch does not exist on {broker.address}.*create it"):
        KafkaSource(config(broker, "nosuch")).partitions()


def test_no_broker_at_the_start_ends_after_the_budget(caplog: pytest.LogCaptureFixture) -> None:
    address = f"127.0.0.1:{free_port()}"
    source = KafkaSource(KafkaConfig(brokers=address, start_budget_s=1.2))
    with pytest.raises(FatalError, match=rf"gave up after 1.2 s.*{address} \(kafka.brokers\)"):
        source.partitions()
    assert "trying again for" in caplog.text


def test_a_broker_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    broker = tansu_broker(tmp_path)

    def come() -> None:
        time.sleep(0.7)
        broker.start()
        create_topic(broker, "late")

    coming = threading.Thread(target=come)
    source = KafkaSource(config(broker, "late"))
    coming.start()
    try:
        with suppress(ConfigError):  # the topic is created a moment after the start of its broker
            source.partitions()
        coming.join()
        assert source.partitions() == ["late/0"]
    finally:
        coming.join()
        broker.kill()


@pytest.fixture
def shortened(kafka: Broker) -> str:
    """A topic of ten records whose first five were deleted."""
    topic = new_topic(kafka)
    produce(kafka, topic, [b"%d" % i for i in range(10)])
    admin = kafka.admin()
    for done in admin.delete_records([TopicPartition(topic, 0, 5)]).values():
        done.result()
    return topic


def test_an_expired_position_fails_unless_told_otherwise(kafka: Broker, shortened: str) -> None:
    reader = KafkaSource(config(kafka, shortened)).open(f"{shortened}/0", 2)
    with pytest.raises(ConfigError, match=r"records 2 to 4 were deleted.*kafka\.on_expired"):
        read(reader)
    reader.close()


@pytest.mark.parametrize(("on_expired", "skipped", "left"), [("earliest", 3, 5), ("latest", 8, 0)])
def test_the_gap_before_an_expired_position_is_counted(
    kafka: Broker, shortened: str, on_expired: str, skipped: int, left: int
) -> None:
    reader = KafkaSource(config(kafka, shortened, on_expired=on_expired)).open(f"{shortened}/0", 2)
    chunks = read(reader)
    assert sum(c.skipped for c in chunks) == skipped
    assert values(chunks) == [b"%d" % i for i in range(10 - left, 10)]
    assert reader.position() == 10
    reader.close()


def test_the_first_start_takes_what_is_there(kafka: Broker, shortened: str) -> None:
    reader = KafkaSource(config(kafka, shortened)).open(f"{shortened}/0", None)
    chunks = read(reader)
    assert values(chunks) == [b"%d" % i for i in range(5, 10)]
    assert not any(c.skipped for c in chunks)
    reader.close()


def test_a_position_after_the_end_is_refused(kafka: Broker, shortened: str) -> None:
    reader = KafkaSource(config(kafka, shortened, on_expired="earliest")).open(f"{shortened}/0", 50)
    with pytest.raises(ConfigError, match=r"ends at offset 10, kafka.start_offsets want 50"):
        read(reader)
    reader.close()


def test_marks_of_transactions_and_aborted_records_are_no_loss(kafka: Broker) -> None:
    topic = new_topic(kafka)
    producer = Producer({"bootstrap.servers": kafka.address, "transactional.id": topic})
    producer.init_transactions(30)
    for value, end in [
        (b"1", producer.commit_transaction),
        (b"aborted", producer.abort_transaction),
        (b"2", producer.commit_transaction),
    ]:
        producer.begin_transaction()
        producer.produce(topic, value, partition=0)
        producer.flush(10)
        end(10)
    reader = KafkaSource(config(kafka, topic)).open(f"{topic}/0", None)
    chunks = read(reader)
    assert values(chunks) == [b"1", b"2"]
    assert [int(o) for c in chunks for o in c.offsets] == [0, 4]
    assert not any(c.skipped for c in chunks)
    assert reader.position() == 6  # after the mark of the last transaction
    reader.close()
    again = KafkaSource(config(kafka, topic)).open(f"{topic}/0", 2)
    assert values(read(again)) == [b"2"]
    again.close()


def test_a_password_is_in_no_error_and_no_log(kafka: Broker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    options: Options = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "someone",
        "sasl.password": "hunter2-very-secret",
        "debug": "all",
        "log_level": 7,
    }
    settings = KafkaConfig(brokers=kafka.address, topics=("t",), start_budget_s=1, options=options)
    with pytest.raises((ConfigError, FatalError)) as refused:
        KafkaSource(settings).partitions()
    assert kafka.address in str(refused.value)
    assert "hunter2" not in str(refused.value) + caplog.text + repr(settings)
