"""Where the log of a partition ends, as far as its leader has said of late.

The client's own event at the end of a partition comes before records of transactions that are still open, and nothing
takes it back while the leader is away. The high watermark counts those records, and the client's statistics tell when
the leader has answered last.
"""

from __future__ import annotations

import logging
import time
from typing import Final

import orjson
from confluent_kafka import Consumer, KafkaException, TopicPartition

from connectors.kafka.client import error_of

logger = logging.getLogger(__name__)

STATISTICS: Final = {"statistics.interval.ms": "1000"}
"""The option that a consumer needs for `LogEnd.on_statistics`."""

_HEARD_S: Final = 5.0
"""How long an answer of the leader holds, in seconds. It answers fetches within half a second, even without records,
and the statistics show an answer within a second."""
_ASK_S: Final = 5.0
"""How often at most a partition that is not polled asks for its end, in seconds."""
_ANSWER_S: Final = 0.1


class LogEnd:
    """The end of one partition as one consumer knows it."""

    def __init__(self, topic: str, number: int) -> None:
        self._topic = topic
        self._number = number
        self._place = TopicPartition(topic, number)
        self._heard = 0.0  # by the monotonic clock
        self._polled = False  # since the last question for the number of records left
        self._told = -1  # the end that the brokers gave when asked
        self._asked = 0.0
        self.forget()

    def forget(self) -> None:
        """Forget the last answer: it was about another log, or another place in it."""
        self._heard = -_HEARD_S

    def polled(self, something: bool) -> None:
        """The consumer was polled; a record or event is an answer of the leader."""
        self._polled, self._told = True, -1
        if something:
            self._heard = time.monotonic()

    def on_statistics(self, text: str) -> None:
        """Note when the broker that serves the partition answered last."""
        told = orjson.loads(text)
        partitions = told["topics"].get(self._topic, {}).get("partitions", {})
        fetched_from = partitions.get(str(self._number), {}).get("broker", -1)
        if fetched_from < 0:  # it has no leader; the coordinator of the group has no number either
            return
        for broker in told["brokers"].values():
            if broker["nodeid"] == fetched_from and broker["state"] == "UP" and broker["rxidle"] >= 0:
                self._heard = max(self._heard, (told["ts"] - broker["rxidle"]) / 1e6)

    def high(self, consumer: Consumer) -> int | None:
        """The high watermark of the last fetch; None before the first fetch and after a failed one.

        After a failed fetch records of an earlier one may still come: the client forgets the end first.
        """
        _, high = consumer.get_watermark_offsets(self._place, cached=True)
        return high if high >= 0 else None

    def after(self, consumer: Consumer, offset: int) -> int | None:
        """The high watermark, which lies behind the record just handed out at `offset`; None where unknown."""
        high = self.high(consumer)
        return None if high is None else max(high, offset + 1)

    def stands_at(self, consumer: Consumer, position: int) -> bool:
        """Whether the leader has lately said that no record follows the position, not even an unreadable one."""
        if time.monotonic() - self._heard > _HEARD_S:
            return False
        high = self.high(consumer)
        return high is not None and high <= position

    def behind(self, consumer: Consumer, position: int) -> int | None:
        """How many records come after the position, those that cannot be read yet included; None where unknown.

        Where nothing was polled since the last call the client may have stopped to fetch, so the brokers are asked now
        and then, for a tenth of a second at most.
        """
        if not self._polled and time.monotonic() - self._asked > _ASK_S:
            self._ask(consumer)
        self._polled = False
        high = self.high(consumer)
        known = self._told if high is None else max(self._told, high)
        return None if known < 0 else max(known - position, 0)

    def _ask(self, consumer: Consumer) -> None:
        """Ask for the end of the readable records; a client that reads committed records is told no other end."""
        self._asked = time.monotonic()
        try:
            _, self._told = consumer.get_watermark_offsets(self._place, timeout=_ANSWER_S)
        except KafkaException as e:
            logger.debug("the end of %s/%d is unknown: %s", self._topic, self._number, error_of(e).name())
