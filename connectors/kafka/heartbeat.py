"""Sends a record now and then to a topic of its own while the flow works: a dead man's switch.

A watcher of that topic notices a flow that stands still, even one of which nothing is left.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message

from connectors.kafka.client import make_producer
from connectors.kafka.config import KafkaConfig

log = logging.getLogger(__name__)

_OPTIONS: Final = {"enable.idempotence": "false", "acks": "1", "message.timeout.ms": "30000"}
_LAST_S: Final = 1.0


class Heartbeats:
    """Asks `say` each `every_s` seconds for the next record and sends it, from a thread of its own until `close`.

    `say` gives None where nothing has moved, and then nothing is sent. `delivered` is called for each record that is on
    the topic. A record that cannot be delivered is given up: the next one says more.
    """

    def __init__(
        self,
        config: KafkaConfig,
        key: str,
        every_s: float,
        say: Callable[[], bytes | None],
        delivered: Callable[[], None],
    ) -> None:
        self._config = config
        self._key = key
        self._every_s = every_s
        self._say = say
        self._delivered = delivered
        self._failing = False
        self._producer = make_producer(config, _OPTIONS)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed.wait(self._every_s):
            if (value := self._say()) is not None:
                try:
                    self._producer.produce(self._config.heartbeat_topic, value, key=self._key, on_delivery=self._done)
                except (BufferError, KafkaException) as error:
                    self._fail(type(error).__name__)
            self._producer.poll(min(0.2, self._every_s))

    def _done(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._fail(error.name())
            return
        self._failing = False
        self._delivered()

    def _fail(self, why: str) -> None:
        if not self._failing:  # log once until a record is delivered again
            log.warning("no heartbeat reaches %s: %s", self._config.heartbeat_topic, why)
        self._failing = True

    def close(self) -> None:
        """Stop sending; waits a second for records under way."""
        self._closed.set()
        self._thread.join(2 * _LAST_S)
        self._producer.flush(_LAST_S)
