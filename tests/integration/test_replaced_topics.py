"""Topics of the source that are made anew, cut, or grow while they are read or between two runs."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path
from signal import SIGTERM
from typing import Any

import orjson
import pytest
from confluent_kafka.cimpl import NewPartitions

from connectors.base import Chunk, State
from connectors.kafka.reader import KafkaReader
from connectors.kafka.source import KafkaSource
from operators.errors import ConfigError, RetryableError
from tests.brokers import Broker, create_topic, delete_topic, kafka_broker, produce, read_all
from tests.integration.test_bad_input import START, a_topic, kafka_settings, record
from tests.integration.test_kafka_reader import config, new_topic, read, values
from tests.integration.test_neighbours import Flow, finished
from tests.processes import Job

OLD = [b"old-%d" % i for i in range(20)]
NEW = [b"new-%d" % i for i in range(50)]


def make_anew(broker: Broker, topic: str, records: list[bytes]) -> None:
    delete_topic(broker, topic)
    create_topic(broker, topic)
    produce(broker, topic, records)


def grow(broker: Broker, topic: str, partitions: int) -> None:
    admin = broker.admin()
    admin.create_partitions([NewPartitions(topic, partitions)])[topic].result()


@pytest.fixture
def left(kafka: Broker) -> tuple[str, int, State]:
    """A topic that was read to offset 20, then made anew and written beyond it; its reader's position and log state."""
    topic = new_topic(kafka)
    produce(kafka, topic, OLD)
    reader = KafkaSource(config(kafka, topic)).open(f"{topic}/0", None)
    assert values(read(reader)) == OLD
    position, log = reader.position(), reader.log()
    reader.close()
    make_anew(kafka, topic, NEW)
    return topic, position, log


def test_a_topic_made_anew_refuses_the_start_unless_told_otherwise(kafka: Broker, left: tuple[str, int, State]) -> None:
    topic, position, log = left
    with pytest.raises(ConfigError, match=r"was made anew .* offset 20 of partition 0 .*kafka\.on_expired"):
        KafkaSource(config(kafka, topic)).open(f"{topic}/0", position, log)


@pytest.mark.parametrize(("on_expired", "skipped", "came"), [("earliest", 0, NEW), ("latest", 50, [])])
def test_a_topic_made_anew_is_read_where_that_is_set(
    kafka: Broker, left: tuple[str, int, State], on_expired: str, skipped: int, came: list[bytes]
) -> None:
    topic, position, log = left
    source = KafkaSource(config(kafka, topic, on_expired=on_expired))
    reader = source.open(f"{topic}/0", position, log)
    chunks = read(reader)
    assert values(chunks) == came
    assert sum(chunk.skipped for chunk in chunks) == skipped
    produce(kafka, topic, [b"last"])
    assert values(read(reader, until=1)) == [b"last"]
    assert (reader.position(), reader.log()[0] != log[0]) == (51, True)
    again = source.open(f"{topic}/0", 50, reader.log())
    assert values(read(again)) == [b"last"]  # this topic was not made anew since
    reader.close()
    again.close()


def test_without_an_id_the_position_is_taken_as_it_is(kafka: Broker, left: tuple[str, int, State]) -> None:
    topic, position, _ = left
    reader = KafkaSource(config(kafka, topic)).open(f"{topic}/0", position, ())
    assert values(read(reader)) == NEW[20:]
    assert reader.log()[0]
    reader.close()


@pytest.mark.parametrize("on_expired", ["earliest", "fail"])
def test_a_topic_made_anew_while_it_is_read(kafka: Broker, on_expired: str) -> None:
    topic = new_topic(kafka)
    produce(kafka, topic, OLD)
    source = KafkaSource(config(kafka, topic, on_expired=on_expired))
    watch = source.watch(0.1, lambda topic, partitions: None)
    reader = source.open(f"{topic}/0", None)
    assert values(read(reader)) == OLD
    make_anew(kafka, topic, NEW)
    try:
        if on_expired == "fail":
            with pytest.raises(ConfigError, match="was made anew"):
                after_the_change(reader)
        else:
            assert after_the_change(reader) == NEW
    finally:
        watch.close()
        reader.close()


def test_a_topic_made_anew_that_is_shorter_is_known_by_its_id(kafka: Broker) -> None:
    """No watch has looked at the topic yet: the brokers say that the position does not exist."""
    topic = new_topic(kafka)
    produce(kafka, topic, OLD)
    reader = KafkaSource(config(kafka, topic, on_expired="earliest")).open(f"{topic}/0", None)
    assert values(read(reader)) == OLD
    make_anew(kafka, topic, NEW[:10])
    assert after_the_change(reader, 10) == NEW[:10]
    reader.close()


def after_the_change(reader: KafkaReader, records: int = len(NEW)) -> list[bytes]:
    """At least this many records, from the poll on that finds another log."""
    came: list[Chunk] = []
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with suppress(RetryableError):  # the client learns a little later that the topic is back
            chunk = reader.poll(1000)
            if chunk.replaced or came:
                came.append(chunk)
            if came and len(values(came)) >= records:
                return values(came)
        time.sleep(0.01)
    raise AssertionError(f"the reader did not notice the change: {came}")


def test_a_log_that_was_cut_and_has_grown_beyond_the_position(tmp_path: Path) -> None:
    """The last 8 of 20 records are lost, as with a new leader that did not have them, and 50 others come."""
    broker, log = kafka_broker(tmp_path), tmp_path / "data" / "t-0"
    broker.start()
    try:
        create_topic(broker, "t")
        produce(broker, "t", OLD[:12])
        broker.stop()
        shutil.copytree(log, tmp_path / "kept")
        broker.start()
        produce(broker, "t", OLD[12:])
        source = KafkaSource(config(broker, "t", on_expired="earliest"))
        running = source.open("t/0", None)
        assert values(read(running)) == OLD
        position, state = running.position(), running.log()
        broker.stop()
        shutil.rmtree(log)
        shutil.copytree(tmp_path / "kept", log)
        broker.start()
        produce(broker, "t", NEW)
        for reader in (running, source.open("t/0", position, state)):
            assert after_the_change(reader) == NEW
            assert reader.position() == 62
            reader.close()
        refusing = KafkaSource(config(broker, "t")).open("t/0", position, state)
        with pytest.raises(ConfigError, match=r"the log was cut, .* before offset 20\. Set kafka\.on_expired"):
            read(refusing)
        refusing.close()
    finally:
        broker.kill()


def test_fewer_partitions_than_at_the_first_start_are_refused(kafka: Broker) -> None:
    topic = new_topic(kafka, 2)
    assert KafkaSource(config(kafka, topic)).began_with({"other": 5}) == {topic: 2}
    assert KafkaSource(config(kafka, topic)).began_with({topic: 1}) == {topic: 1}
    with pytest.raises(ConfigError, match=f"topic {topic} had 3 partitions at the first start .* now it has 2"):
        KafkaSource(config(kafka, topic)).began_with({topic: 3})


class Reading(Flow):
    """A job that reads a topic of 300 records and runs until it is stopped."""

    def __init__(self, kafka: Broker, folder: Path, **settings: Any) -> None:
        self.topic = a_topic(kafka, dated(0, 300))
        super().__init__(Job(folder, kafka_settings(kafka, self.topic, kafka__heartbeat_s=0, **settings)))

    def run_until(self, records: int) -> str:
        """Start it, stop it when it has read this many records in all, and return its output."""
        with self.start() as process:
            self.until(lambda: self.records() == records)
            process.send(SIGTERM)
            return finished(process)


def dated(first: int, last: int) -> list[bytes]:
    return [record(START + n) for n in range(first, last)]


def test_a_flow_over_a_topic_that_was_made_anew(kafka: Broker, tmp_path: Path) -> None:
    """The new topic is longer than the position, so only its id shows that it is another one."""
    flow = Reading(kafka, tmp_path)
    flow.run_until(300)
    make_anew(kafka, flow.topic, dated(300, 800))
    with flow.start("refused") as process:
        assert process.finish() == 78, process.said()
    assert f"the topic {flow.topic} was made anew" in process.said()
    assert "Traceback" not in process.said()
    with flow.start("last", kafka__on_expired="earliest") as process:
        flow.until(lambda: flow.records() == 800)
        assert flow.metric("sentinel_source_logs_replaced_total", partition=f"{flow.topic}/0") == 1
        process.send(SIGTERM)
        assert "the topic was made anew" in finished(process)
    assert flow.job.balance()["on_time"] == 800


def test_dead_letters_of_a_topic_made_anew_are_none_of_those_before(kafka: Broker, tmp_path: Path) -> None:
    """They look alike at the same offsets: with equal ids the writer, which reads back its topic, would skip them."""
    topic, records = a_topic(kafka, [b"no json", b"{"]), [b"no json", b"{", b"[]"]
    letters = f"{topic}.letters"
    told = {"kafka__dead_letter_topic": letters, "dead_letters__kafka": True, "kafka__stop_at_end": True}
    for name, of_these in (("first", 2), ("again", 2), ("anew", 5)):
        if name == "anew":
            make_anew(kafka, topic, records)
        Job(tmp_path / name, kafka_settings(kafka, topic, **told)).run()
        found = [orjson.loads(message.value() or b"") for message in read_all(kafka, letters)]
        assert len(found) == len({letter["id"] for letter in found}) == of_these
    assert [letter["offset"] for letter in found] == [0, 1, 0, 1, 2]


def test_partitions_that_come_are_told_of_and_read_after_a_restart_from_their_first_record(
    kafka: Broker, tmp_path: Path
) -> None:
    flow = Reading(kafka, tmp_path, kafka__start="latest", time__idle_s=0.5)  # an idle partition soon says so
    with flow.start() as process:
        flow.until(lambda: flow.metric("sentinel_source_polls_total") > 0)
        produce(kafka, flow.topic, dated(300, 350))
        flow.until(lambda: flow.records() == 50)
        assert flow.metric("sentinel_source_partitions_unread", topic=flow.topic) == 0
        grow(kafka, flow.topic, 3)
        produce(kafka, flow.topic, dated(350, 400), 2)
        flow.until(lambda: flow.metric("sentinel_source_partitions_unread", topic=flow.topic) == 2)
        process.send(SIGTERM)
        said = finished(process)
    assert f"topic {flow.topic} has 3 partitions, 2 more than are read: restart all processes" in said
    flow.run_until(100)
    produce(kafka, flow.topic, dated(350, 400), 1)
    flow.run_until(150)
