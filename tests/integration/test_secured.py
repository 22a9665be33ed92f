"""The main job with a broker that wants a password or a certificate, with the settings of `docs/security.md`."""

from __future__ import annotations

import json
import re
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism
from confluent_kafka.admin._scram import UserScramCredentialDeletion as Deletion
from confluent_kafka.admin._scram import UserScramCredentialUpsertion as Upsertion

from connectors.kafka.config import KafkaConfig
from connectors.kafka.once import KafkaOnce
from operators.errors import RetryableError
from tests.brokers import create_topic, free_port, kafka_broker, produce, read_all
from tests.certificates import Authority, Certificate
from tests.conftest import ROOT
from tests.integration.test_bad_input import kafka_settings
from tests.integration.test_kafka_once import alerts, ids, persist
from tests.integration.test_neighbours import CALM, QUICK, RECORDS, Flow, finished, undisturbed
from tests.processes import Job, Process

__all__ = ["undisturbed"]  # a fixture

USER = "llm-sentinel"
PASSWORD = "right-password-84b1"
WRONG = "wrong-password-27cd"
REAUTH_MS = 2_000
"""After this many milliseconds the broker asks a connection for the password again."""
pytestmark = pytest.mark.timeout(300)


def documented() -> dict[str, dict[str, str]]:
    """The options that the document shows, by security protocol."""
    blocks = re.findall(r"(?ms)^```toml\n(.*?)^```", (ROOT / "docs" / "security.md").read_text())
    found = [config["kafka"]["options"] for config in map(tomllib.loads, blocks) if "kafka" in config]
    return {options["security.protocol"]: options for options in found}


class Secured:
    """An Apache Kafka with a listener for each way to connect, and rights that are given one by one."""

    def __init__(self, folder: Path) -> None:
        self.ca = Authority(folder / "ca")
        self.client = self.ca.issued(USER)
        ports = {name: free_port() for name in ("PLAINTEXT", "CONTROLLER", "SASL_SSL", "SSL", "ELSEWHERE")}
        self.at = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        self._store = folder / "broker.pem"
        self.has(self.ca.issued("broker"))
        elsewhere = self.ca.issued("elsewhere", host="DNS:kafka.example").store(folder / "elsewhere.pem")
        kinds = {**{name: name for name in ports}, "CONTROLLER": "PLAINTEXT", "ELSEWHERE": "SSL"}
        listeners = [f"{name}://{address}" for name, address in self.at.items()]
        self.broker = kafka_broker(
            folder,
            f"""listeners={",".join(listeners)}
advertised.listeners={",".join(x for x in listeners if not x.startswith("CONTROLLER"))}
controller.quorum.voters=1@{self.at["CONTROLLER"]}
listener.security.protocol.map={",".join(f"{name}:{kind}" for name, kind in kinds.items())}
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
connections.max.reauth.ms={REAUTH_MS}
ssl.keystore.type=PEM
ssl.keystore.location={self._store}
ssl.truststore.type=PEM
ssl.truststore.location={self.ca.cert}
listener.name.ssl.ssl.client.auth=required
listener.name.elsewhere.ssl.keystore.type=PEM
listener.name.elsewhere.ssl.keystore.location={elsewhere}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS""",
        )
        self.broker.address = self.at["PLAINTEXT"]  # for the tests themselves, which may do everything

    def has(self, certificate: Certificate) -> None:
        """Set the certificate that the broker shows from its next start on."""
        certificate.store(self._store)

    def password(self, password: str | None) -> None:
        """Set the password of the user, or take it away."""
        kind = ScramMechanism.SCRAM_SHA_512
        change: Any = Deletion(USER, kind)
        if password is not None:
            change = Upsertion(USER, ScramCredentialInfo(kind, 4096), password.encode())
        admin = self.broker.admin()
        for done in admin.alter_user_scram_credentials([change]).values():
            done.result()

    def rights(self, name: str) -> None:
        """Give both users of the flow the rights that `docs/security.md` lists, and no more."""
        wanted = {
            (ResourceType.TOPIC, name, ResourcePatternType.LITERAL): [AclOperation.READ],
            (ResourceType.TOPIC, f"{name}.", ResourcePatternType.PREFIXED): [
                AclOperation.READ, AclOperation.WRITE, AclOperation.CREATE,
            ],
            (ResourceType.GROUP, name, ResourcePatternType.PREFIXED): [AclOperation.READ],
            (ResourceType.TRANSACTIONAL_ID, name, ResourcePatternType.PREFIXED): [AclOperation.WRITE],
        }  # fmt: skip
        allow = AclPermissionType.ALLOW
        rules = [
            AclBinding(kind, resource, pattern, user, "*", operation, allow)
            for (kind, resource, pattern), operations in wanted.items()
            for operation in operations
            for user in (f"User:{USER}", f"User:CN={USER}")
        ]
        admin = self.broker.admin()
        for done in admin.create_acls(rules).values():
            done.result()

    def options(self, protocol: str) -> dict[str, str]:
        """The options of the document with the paths of this test, and with the password if the protocol wants one."""
        here = {
            "ssl.ca.location": self.ca.cert,
            "ssl.certificate.location": self.client.cert,
            "ssl.key.location": self.client.key,
        }
        shown = {name: str(here.get(name, value)) for name, value in documented()[protocol].items()}
        return shown if protocol == "SSL" else {**shown, "sasl.password": PASSWORD}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    found = Secured(tmp_path_factory.mktemp("secured"))
    found.broker.start()
    found.password(PASSWORD)
    yield found
    found.broker.kill()


class Watching(Flow):
    """The whole flow over one of the listeners: it reads a topic, and creates those of alerts and heartbeats."""

    def __init__(self, secured: Secured, folder: Path, protocol: str) -> None:
        self.secured = secured
        self.broker = secured.broker
        self.topic = f"t-{uuid4().hex[:8]}"
        create_topic(self.broker, self.topic)
        secured.rights(self.topic)
        options = {**secured.options(protocol), "reconnect.backoff.max.ms": 300}
        changes = {
            "kafka.brokers": secured.at[protocol], "kafka.options": options, "alerts.kafka": True, "alerts.jsonl": "",
            "kafka.alert_topic": f"{self.topic}.alerts", "kafka.dead_letter_topic": f"{self.topic}.dead",
            "dead_letters.kafka": True, "kafka.heartbeat_topic": f"{self.topic}.beat", "kafka.heartbeat_s": 0.2,
        }  # fmt: skip
        super().__init__(Job(folder, {**kafka_settings(self.broker, self.topic), **QUICK, **changes}))

    def sends(self, records: list[bytes]) -> None:
        produce(self.broker, self.topic, records)

    def written(self, what: str) -> list[bytes]:
        return [message.value() or b"" for message in read_all(self.broker, f"{self.topic}.{what}")]

    def beats(self) -> int:
        return len(self.written("beat"))

    def came_to(self, undisturbed: Job) -> None:
        assert self.written("alerts") == undisturbed.alerts()
        assert self.job.rows("llm_panes") == undisturbed.rows("llm_panes")
        assert self.job.balance() == undisturbed.balance()


@pytest.mark.parametrize("protocol", ["SASL_SSL", "SSL"])
def test_the_whole_flow_over_a_kill(secured: Secured, tmp_path: Path, undisturbed: Job, protocol: str) -> None:
    flow = Watching(secured, tmp_path, protocol)
    flow.sends(RECORDS[:450])
    with flow.start() as process:
        flow.until(lambda: flow.written("alerts") == undisturbed.alerts()[:1])
        flow.until(lambda: flow.beats() >= 2)
        process.send(SIGKILL)
        process.finish()
    flow.sends(RECORDS[450:])
    with flow.start("second", kafka__stop_at_end=True) as process:
        said = finished(process)
    flow.came_to(undisturbed)
    assert PASSWORD not in said
    assert {json.loads(beat)["process"] for beat in flow.written("beat")} == {0}


def in_the_end(flow: Watching, process: Process, undisturbed: Job) -> str:
    """Stop the flow when it has read everything, run it to its end, and check the results; returns the first output."""
    flow.until(lambda: flow.records() == len(RECORDS))
    process.send(SIGTERM)
    said = finished(process)
    with flow.start("last", kafka__stop_at_end=True) as last:
        finished(last)
    flow.came_to(undisturbed)
    assert PASSWORD not in said and WRONG not in said
    return said


def test_a_password_that_is_taken_away_for_a_while(secured: Secured, tmp_path: Path, undisturbed: Job) -> None:
    """The broker asks for the password again after `connections.max.reauth.ms`."""
    flow = Watching(secured, tmp_path, "SASL_SSL")
    flow.sends(RECORDS[:CALM])
    with flow.start() as process:
        flow.until(lambda: flow.records() == CALM and flow.beats() > 0)
        secured.password(WRONG)
        try:
            process.wait_for(f"reading {flow.topic}/0: no broker of ", 60, times=2)
            flow.sends(RECORDS[CALM:])
            process.wait_for(f"reading {flow.topic}/0: no broker of ", 60, times=6)
            assert flow.records() == CALM
        finally:
            secured.password(PASSWORD)
        said = in_the_end(flow, process, undisturbed)
    assert re.search(r"Authentication failed .* \(_AUTHENTICATION\): Kafka at .* refuses this client; see its", said)


def test_a_certificate_of_the_broker_that_expires_and_is_renewed(
    secured: Secured, tmp_path: Path, undisturbed: Job
) -> None:
    """A client checks the certificate when it connects, so after the restart of the broker."""
    flow = Watching(secured, tmp_path, "SSL")
    flow.sends(RECORDS[:CALM])
    with flow.start() as process:
        flow.until(lambda: flow.records() == CALM)
        try:
            secured.broker.kill()
            secured.has(secured.ca.issued("expired-broker", expires_in_s=-60))
            secured.broker.start()
            flow.sends(RECORDS[CALM:])
            process.wait_for("is not accepted: it is expired, of another host name", 60, times=2)
            assert flow.records() == CALM
        finally:
            secured.broker.kill()
            secured.has(secured.ca.issued("renewed-broker"))
            secured.broker.start()
        in_the_end(flow, process, undisturbed)


def test_what_is_wrong_from_the_start_is_said_with_exit_code_78(secured: Secured, tmp_path: Path) -> None:
    sasl, tls = secured.options("SASL_SSL"), secured.options("SSL")
    other = Authority(tmp_path / "other", "other")
    name = f"t-{uuid4().hex[:8]}"
    create_topic(secured.broker, name)

    def of(certificate: Certificate) -> dict[str, str]:
        return {**tls, "ssl.certificate.location": str(certificate.cert), "ssl.key.location": str(certificate.key)}

    not_accepted = "of Kafka at .* is not accepted: it is expired, of another host name, or not of a CA in ssl.ca.loc"
    ours_not = "does not accept the certificate of this client: none is set, it is expired, or not of a CA"
    cases: list[tuple[str, dict[str, str], str]] = [
        ("SASL_SSL", {**sasl, "sasl.password": WRONG}, "Authentication failed .* see its rights and kafka.options"),
        ("SASL_SSL", {**sasl, "sasl.username": "nobody"}, "Authentication failed .* see its rights and kafka.options"),
        ("SASL_SSL", {**sasl, "sasl.mechanism": "PLAIN"}, "supported mechanisms: SCRAM-SHA-512"),
        ("SASL_SSL", sasl, r"\(TOPIC_AUTHORIZATION_FAILED\): .* see its rights"),
        ("SASL_SSL", {**sasl, "ssl.ca.location": str(other.cert)}, not_accepted),
        ("ELSEWHERE", tls, not_accepted),
        ("SSL", of(secured.ca.issued("expired", expires_in_s=-60)), ours_not),
        ("SSL", of(other.issued("stranger")), ours_not),
        ("SSL", {**tls, "ssl.ca.location": str(tmp_path / "nowhere.pem")}, "kafka.options: .* ssl.ca.location failed"),
    ]
    with ExitStack() as stack:
        started = []
        for number, (listener, options, why) in enumerate(cases):
            settings = {"kafka.brokers": secured.at[listener], "kafka.options": options}
            job = Job(tmp_path / str(number), {**kafka_settings(secured.broker, name), **settings})
            started.append((stack.enter_context(job.start()), why))
        for process, why in started:
            assert process.finish() == 78, process.said()
            said = process.said()
            assert re.search(f"llm-sentinel cannot start: .*{why}", said), said
            assert PASSWORD not in said and WRONG not in said and "Traceback" not in said


def test_a_writer_says_why_nobody_answers_and_goes_on_later(secured: Secured) -> None:
    name = f"t-{uuid4().hex[:8]}"
    secured.rights(name)
    options: dict[str, Any] = {**secured.options("SASL_SSL"), "reconnect.backoff.max.ms": 300}
    config = KafkaConfig(brokers=secured.at["SASL_SSL"], group_id=name, options=options, request_s=3)
    factory = KafkaOnce(config, f"{name}.alerts", "alerts")
    assert factory.partitions() == [f"{name}.alerts/0"]
    writer = factory.open(f"{name}.alerts/0", None)
    writer.write(alerts(1))
    secured.password(None)
    try:
        time.sleep(REAUTH_MS / 1_000)
        with pytest.raises(RetryableError, match=r"\(_AUTHENTICATION\): Kafka at .* refuses this client"):  # noqa: PT012
            for number in range(2, 22):
                writer.write(alerts(number))
    finally:
        secured.password(PASSWORD)
    persist(writer, alerts(99))
    assert [ids(secured.broker, f"{name}.alerts")[i] for i in (0, -1)] == ["id-1", "id-99"]
    writer.close()
