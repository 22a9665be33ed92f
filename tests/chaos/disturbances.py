"""The disturbances of a run in a storm, by name. A function returns when its disturbance is over; effects may last."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from signal import SIGCONT, SIGSTOP
from uuid import uuid4

from confluent_kafka import Producer
from confluent_kafka.cimpl import NewPartitions

from flows.recovery.rescale import rescale as moved
from tests.brokers import Broker, create_topic, delete_topic
from tests.chaos.disturbed import Disturbed, written
from tests.waiting import wait_until

MOST_PARTITIONS = 6
"""The most partitions of an input topic that grows."""
STEPS_S = (-3_600, -100, -1, 0, 100, 3_600)
"""The seconds by which the flow's clock may be ahead of the host's after a step."""


def killed(run: Disturbed) -> None:
    """One process dies by SIGKILL."""
    run.kill()


def supervisor_killed(run: Disturbed) -> None:
    """The supervisor dies by SIGKILL, and all processes with it; it is started again."""
    run.fall()
    run.kills += 1
    run.start()


def rescaled(run: Disturbed) -> None:
    """The run stops with a last snapshot and goes on in another number of processes."""
    run.workers = 5 - run.workers
    run.stop()
    if run.place.volumes:
        moved([run.job.folder / "recovery" / str(number) for number in range(3)], run.workers)
    run.start()


def broker_killed(run: Disturbed) -> None:
    """The broker (of two, the one that is also the controller) dies by SIGKILL and comes back."""
    broker = run.place.brokers[0]
    broker.kill()
    time.sleep(run.place.random.uniform(0, 2))
    broker.start()


def leaders_lost(run: Disturbed) -> None:
    """The second broker dies: the first leads all partitions, until the second has come back and leads its own."""
    broker = run.place.brokers[1]
    broker.kill()
    time.sleep(run.place.random.uniform(1, 4))
    broker.start()


def held(run: Disturbed) -> None:
    """One process hangs for a while (SIGSTOP)."""
    pid = run.place.random.choice(run.pids())
    with suppress(ProcessLookupError):
        os.kill(pid, SIGSTOP)
        time.sleep(run.place.random.uniform(0.2, 4))
        os.kill(pid, SIGCONT)


def broker_held(run: Disturbed) -> None:
    """A broker hangs for a while (SIGSTOP)."""
    broker = run.place.random.choice(run.place.brokers)
    broker.signal(SIGSTOP)
    time.sleep(run.place.random.uniform(0.2, 4))
    broker.signal(SIGCONT)


def outputs_grown(run: Disturbed) -> None:
    """The topics of alerts and dead letters have more partitions when the run comes back from a kill."""
    run.fall()
    run.kills += 1
    for topic in _there(run):
        _grow(run.place.brokers[0], topic, 2)
    run.start()


def outputs_anew(run: Disturbed) -> None:
    """The topics of alerts and dead letters are new and empty when the run comes back from a kill.

    `run.gone` keeps the records of the old topics: old and new topics together must lack nothing.
    """
    run.fall()
    run.kills += 1
    topics = _there(run)
    if len(topics) == len(run.outputs):
        run.gone |= written(run.place.brokers[0], run.outputs)
        for topic in topics:
            delete_topic(run.place.brokers[0], topic)
        wait_until(lambda: not _there(run), "the broker deletes the topics", seconds=30)
        for topic in topics:
            create_topic(run.place.brokers[0], topic, replicas=len(run.place.brokers))
    run.start()


def outputs_hung(run: Disturbed) -> None:
    """A stranger's transaction is open on the output topics when a process dies, and is aborted a while later."""
    topics = _there(run)
    give_up = hanging(run.place.brokers[0], [(topic, 0) for topic in topics])
    run.kill()
    time.sleep(run.place.random.uniform(1, 6))
    give_up()


def input_grown(run: Disturbed) -> None:
    """The topic that is read gets one more partition, which stays empty; a killed process sees it when it is back."""
    if _partitions(run.place.brokers[0], run.source) < MOST_PARTITIONS:
        _grow(run.place.brokers[0], run.source, 1)
    run.kill()


def clock_set(run: Disturbed) -> None:
    """Somebody sets the clock of the flow's host, back or forward."""
    assert run.place.clock is not None
    run.place.clock.set(run.place.random.choice(STEPS_S))


@dataclass(frozen=True)
class Kind:
    """A disturbance: how often it comes relative to others, whether it kills processes, how many brokers it needs."""

    befall: Callable[[Disturbed], None]
    weight: int
    kills: bool = False
    brokers: int = 1


KINDS = {
    "kill": Kind(killed, 30, kills=True),
    "supervisor": Kind(supervisor_killed, 5, kills=True),
    "rescale": Kind(rescaled, 8),
    "broker": Kind(broker_killed, 6),
    "leaders": Kind(leaders_lost, 8, brokers=2),
    "stop": Kind(held, 8),
    "broker-stop": Kind(broker_held, 6),
    "outputs-grown": Kind(outputs_grown, 4, kills=True),
    "outputs-anew": Kind(outputs_anew, 4, kills=True),
    "outputs-hung": Kind(outputs_hung, 4, kills=True),
    "input-grown": Kind(input_grown, 3, kills=True),
    "clock": Kind(clock_set, 8),
}


def hanging(broker: Broker, partitions: list[tuple[str, int]]) -> Callable[[], None]:
    """Open a transaction with a record on each of these partitions, which no reader may ever see.

    The returned function aborts the transaction.
    """
    name = {"transactional.id": f"stranger-{uuid4().hex[:8]}", "transaction.timeout.ms": "600000"}
    options = {"bootstrap.servers": broker.address, **name}
    producer = Producer(options)
    producer.init_transactions(30)
    producer.begin_transaction()
    for topic, number in partitions:
        producer.produce(topic, b"never committed", partition=number)
    if producer.flush(30):
        raise RuntimeError("the broker does not take a transaction")

    def give_up() -> None:
        Producer(options).init_transactions(60)  # works even if the first producer has lost its broker

    return give_up


def _there(run: Disturbed) -> list[str]:
    """The output topics of the run that exist; the run creates them when it starts."""
    listed = run.place.brokers[0].admin().list_topics(timeout=30).topics
    return [topic for topic in run.outputs if topic in listed]


def _partitions(broker: Broker, topic: str) -> int:
    return len(broker.admin().list_topics(topic, timeout=30).topics[topic].partitions)


def _grow(broker: Broker, topic: str, by: int) -> None:
    admin = broker.admin()  # kept: a request dies with its client
    admin.create_partitions([NewPartitions(topic, _partitions(broker, topic) + by)])[topic].result()
