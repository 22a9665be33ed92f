"""Records exactly once on real brokers: crashes, zombies, refused records."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import KafkaException, Producer

from connectors.base import Message, State
from connectors.kafka.config import KafkaConfig
from connectors.kafka.once import MOST_READ_BACK, KafkaOnce, KafkaOnceWriter
from operators.errors import ConfigError, DataError, FatalError, RetryableError
from tests.brokers import Broker, create_topic, delete_topic, produce, read_all
from tests.conftest import ROOT


@pytest.fixture
def topic(broker: Broker) -> str:
    name = f"a-{uuid4().hex[:8]}"
    create_topic(broker, name, 1)
    return name


def config(broker: Broker, **settings: Any) -> KafkaConfig:
    return KafkaConfig(brokers=broker.address, start_budget_s=10, **settings)


def alerts(*numbers: int) -> list[Message]:
    return [
        Message(
            f"id-{n}", f"episode-{n % 3}", {"ce_id": f"id-{n}", "ce_time": "2026-01-01T00:00:00Z"}, b'{"n": %d}' % n
        )
        for n in numbers
    ]


def opened(broker: Broker, topic: str, resume: State | None = None, **settings: Any) -> KafkaOnceWriter:
    return KafkaOnce(config(broker, **settings), topic, "alerts").open(f"{topic}/0", resume)


def persist(writer: KafkaOnceWriter, items: Sequence[Message]) -> None:
    """Write and retry as a sink does."""
    for _ in range(20):
        try:
            return writer.write(items)
        except RetryableError:
            continue
    raise AssertionError("retried in vain")


def ids(broker: Broker, topic: str) -> list[str]:
    """The ids on the topic in order, as a read_committed reader sees them; records without an id are skipped."""
    headers = (dict(m.headers() or []) for m in read_all(broker, topic))
    return [found["ce_id"].decode() for found in headers if "ce_id" in found]  # type: ignore[union-attr]


def test_a_record_keeps_its_key_headers_and_value(broker: Broker, topic: str) -> None:
    writer = opened(broker, topic)
    writer.write(alerts(4))
    (message,) = read_all(broker, topic)
    assert (message.key(), message.value()) == (b"episode-1", b'{"n": 4}')
    assert dict(message.headers() or []) == {"ce_id": b"id-4", "ce_time": b"2026-01-01T00:00:00Z"}
    writer.close()


def test_the_partition_of_a_key_is_the_same_in_every_process(broker: Broker) -> None:
    name = f"a-{uuid4().hex[:8]}"
    factory = KafkaOnce(config(broker, partitions=3), name, "alerts")
    assert factory.partitions() == [f"{name}/0", f"{name}/1", f"{name}/2"]  # created: the topic did not exist
    assert [factory.route(f"episode-{i}") for i in range(6)] == [0, 1, 2, 1, 1, 1]
    assert KafkaOnce(config(broker, create_topics=False), name, "again").partitions() == factory.partitions()


def test_the_number_of_partitions_at_the_first_start_routes_for_ever(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"a-{uuid4().hex[:8]}"
    made = KafkaOnce(config(broker), name, "alerts", first=2)
    assert made.partitions() == [f"{name}/0", f"{name}/1"]  # as many as at the first start, not as configured
    assert (made.added, caplog.text) == (0, "")
    grown = KafkaOnce(config(broker), name, "alerts", first=1)
    assert (grown.partitions(), grown.added, grown.route("episode-0")) == ([f"{name}/0"], 1, 0)
    assert f"topic {name} has 2 partitions: only the first 1 are written" in caplog.text
    with pytest.raises(ConfigError, match=f"topic {name} had 3 partitions at the first start .* now it has 2"):
        KafkaOnce(config(broker), name, "alerts", first=3).partitions()


def test_a_missing_topic_is_refused_where_none_may_be_made(broker: Broker) -> None:
    factory = KafkaOnce(config(broker, create_topics=False), f"a-{uuid4().hex}", "alerts")
    with pytest.raises(ConfigError, match=r"does not exist on .*kafka\.create_topics"):
        factory.partitions()


CHILD = """
import os, signal, sys
from connectors.kafka.config import KafkaConfig
from connectors.kafka.once import KafkaOnce
from tests.integration.test_kafka_once import alerts

address, topic, resume, *writes = sys.argv[1:]
writer = KafkaOnce(KafkaConfig(brokers=address), topic, "alerts").open(topic + "/0", eval(resume))
for numbers in writes:
    if numbers == "snapshot":
        print(writer.snapshot(), flush=True)
    elif numbers == "open":  # a transaction that nobody ends
        producer = writer._producer
        producer.begin_transaction()
        for item in alerts(99, 98):
            producer.produce(topic, item.value, partition=0, headers=list(item.headers.items()))
        producer.flush(10)
    else:
        writer.write(alerts(*map(int, numbers.split(","))))
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(broker: Broker, topic: str, resume: State | None, *writes: str) -> State | None:
    """Write in a process that then kills itself; returns its last snapshot."""
    command = [sys.executable, "-c", CHILD, broker.address, topic, repr(resume), *writes]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == -9, done.stderr
    lines = done.stdout.splitlines()
    found: State | None = eval(lines[-1]) if lines else None
    return found


def test_each_id_once_over_kills_between_commit_and_snapshot(broker: Broker, topic: str) -> None:
    assert killed(broker, topic, None, "1,2", "3") is None
    # a replay from the start in other batches; the snapshot must remember 3, which has not been replayed yet
    snapshot = killed(broker, topic, None, "1", "2", "snapshot", "4")
    assert snapshot is not None
    # after the second crash: 4 was written after the snapshot, 3 before it
    writer = opened(broker, topic, snapshot)
    writer.write(alerts(3, 4, 5, 5))
    writer.write(alerts(6))
    state = writer.snapshot()
    writer.close()
    assert ids(broker, topic) == [f"id-{n}" for n in range(1, 7)]
    again = opened(broker, topic, state)
    again.write(alerts(7))
    again.close()
    assert ids(broker, topic) == [f"id-{n}" for n in range(1, 8)]


def test_an_open_transaction_of_a_dead_process_is_ended(broker: Broker, topic: str) -> None:
    killed(broker, topic, None, "1", "open")
    writer = opened(broker, topic)
    writer.write(alerts(1, 2))
    writer.close()
    if broker.name == "Tansu":  # it shows aborted records even to read_committed readers
        assert [i for i in ids(broker, topic) if i in ("id-1", "id-2")] == ["id-1", "id-2"]
    else:
        assert ids(broker, topic) == ["id-1", "id-2"]


def test_a_living_zombie_is_fenced(broker: Broker, topic: str) -> None:
    zombie = opened(broker, topic)
    zombie.write(alerts(1))
    writer = opened(broker, topic)
    with pytest.raises(FatalError, match=r"another process.*kafka\.group_id"):
        zombie.write(alerts(2))
    writer.write(alerts(1, 2, 3))
    zombie.close()
    writer.close()
    assert ids(broker, topic) == ["id-1", "id-2", "id-3"]


def test_a_record_that_is_too_large_is_refused_alone(broker: Broker, topic: str) -> None:
    writer = opened(broker, topic)
    large = Message("large", "episode", {}, b"x" * 1_100_000)
    with pytest.raises(DataError) as refused:
        writer.write([*alerts(1), large])
    assert refused.value.reason == "record_too_large"
    writer.write(alerts(1, 2))
    writer.close()
    assert [m.value() for m in read_all(broker, topic)] == [b'{"n": 1}', b'{"n": 2}']


def test_records_of_others_are_passed_over(broker: Broker, topic: str) -> None:
    producer = Producer({"bootstrap.servers": broker.address})
    producer.produce(topic, b"not ours", partition=0)
    assert producer.flush(10) == 0
    writer = opened(broker, topic)
    writer.write(alerts(1))
    writer.close()
    assert len(read_all(broker, topic)) == 2
    state = writer.snapshot()
    assert state is not None and state[2] == ()


def test_the_broker_refuses_what_the_client_allows(kafka: Broker) -> None:
    name = f"a-{uuid4().hex[:8]}"
    create_topic(kafka, name, 1, {"max.message.bytes": "2000"})
    writer = opened(kafka, name)
    large = Message("large", "episode", {}, Random(1).randbytes(5_000))
    with pytest.raises(DataError):
        writer.write([large, *alerts(1)])
    persist(writer, alerts(1))  # after a refusal the client may need a new epoch first
    writer.close()
    assert ids(kafka, name) == ["id-1"]


def test_what_an_open_transaction_of_someone_else_hides_is_waited_for(kafka: Broker) -> None:
    name = f"a-{uuid4().hex[:8]}"
    create_topic(kafka, name)
    stranger = Producer({"bootstrap.servers": kafka.address, "transactional.id": name})
    stranger.init_transactions(10)
    stranger.begin_transaction()
    stranger.produce(name, b"not ours", partition=0)
    stranger.flush(10)
    with pytest.raises(RetryableError, match="another producer has left a transaction open on it, which hides the 1 "):
        opened(kafka, name, request_s=1)  # our records could stand behind it
    stranger.abort_transaction(10)
    writer = opened(kafka, name)
    writer.write(alerts(1))
    writer.close()
    assert ids(kafka, name) == ["id-1"]


def test_a_topic_that_is_deleted_is_made_anew_where_that_is_configured(kafka: Broker) -> None:
    name = f"a-{uuid4().hex[:8]}"
    factory = KafkaOnce(config(kafka, partitions=2, request_s=3), name, "alerts")
    writer = factory.open(f"{name}/1", None) if factory.partitions() else None
    assert writer is not None
    persist(writer, alerts(1))
    persist(writer, alerts(2))
    state = writer.snapshot()
    delete_topic(kafka, name)
    persist(writer, alerts(3))
    assert factory.partitions() == KafkaOnce(config(kafka, create_topics=False), name, "again").partitions()
    writer.close()
    again = factory.open(f"{name}/1", state)  # the position in the state is beyond the end of the new topic
    persist(again, alerts(3, 4))
    again.close()
    assert ids(kafka, name) == ["id-3", "id-4"]


def test_a_topic_that_was_made_anew_is_read_back_from_its_start(kafka: Broker) -> None:
    """The new topic is longer than the position in the snapshot when the writer is killed."""
    name = f"a-{uuid4().hex[:8]}"
    create_topic(kafka, name)
    writer = opened(kafka, name)
    writer.write(alerts(1))
    state = writer.snapshot()
    delete_topic(kafka, name)
    create_topic(kafka, name)
    for number in range(2, 7):
        persist(writer, alerts(number))
    again = opened(kafka, name, state)  # the writer was killed before its next snapshot
    again.write(alerts(2, 3, 4, 5, 6, 7))
    again.close()
    assert ids(kafka, name) == [f"id-{n}" for n in range(2, 8)]


def test_groups_and_topics_with_hyphens_do_not_fence_each_other(kafka: Broker) -> None:
    group, name = f"a-{uuid4().hex[:8]}", f"b-{uuid4().hex[:8]}"
    create_topic(kafka, name)
    create_topic(kafka, f"x-{name}")
    first = opened(kafka, name, group_id=f"{group}-x")
    first.write(alerts(1))
    state = first.snapshot()
    first.close()
    first = opened(kafka, name, state, group_id=f"{group}-x")
    other = opened(kafka, f"x-{name}", (2, 0, (), ""), group_id=group)
    other.write(alerts(1))
    first.write(alerts(2))
    for writer in (first, other):
        writer.close()
    assert ids(kafka, name) == ["id-1", "id-2"]


@pytest.mark.parametrize("state", [None, (1, 0, ())])
def test_what_the_release_before_has_left_is_ended(kafka: Broker, state: State | None) -> None:
    """The writers of that release had other transactional ids."""
    name = f"a-{uuid4().hex[:8]}"
    create_topic(kafka, name)
    zombie = Producer({"bootstrap.servers": kafka.address, "transactional.id": f"llm-sentinel-{name}-0"})
    zombie.init_transactions(10)
    zombie.begin_transaction()
    zombie.produce(name, b"9", partition=0, headers=[("ce_id", b"id-9")])
    zombie.flush(10)
    writer = opened(kafka, name, state)
    with pytest.raises(KafkaException):
        zombie.commit_transaction(10)
    writer.write(alerts(1))
    writer.close()
    assert ids(kafka, name) == ["id-1"]


def test_without_a_snapshot_the_end_of_the_topic_is_read_back(kafka: Broker, caplog: pytest.LogCaptureFixture) -> None:
    name = f"a-{uuid4().hex[:8]}"
    create_topic(kafka, name)
    writer = opened(kafka, name)
    writer.write(alerts(1))
    produce(kafka, name, [b"x"] * MOST_READ_BACK)
    writer.write(alerts(2))
    writer.close()
    again = opened(kafka, name)
    again.write(alerts(1, 2, 3))
    again.close()
    assert ids(kafka, name)[-2:] == ["id-1", "id-3"]  # id-1 was written again
    assert f"reading back its last {MOST_READ_BACK} offsets" in caplog.text
