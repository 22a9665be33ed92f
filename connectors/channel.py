"""A Bytewax sink at best effort: a bounded queue and a thread beside the flow, which it can neither end nor delay.

Only that thread opens and uses the writer, so a writer that hangs, fails for ever or raises an unexpected error harms
nothing else. Items that cannot be delivered are dropped, counted and logged. A snapshot holds the waiting items; the
next process sends them, under the same ids.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from connectors.base import Guarantee, Message, State, Writer, WriterFactory
from connectors.clocks import Clock
from connectors.config import ReliabilityConfig
from connectors.reliable import (
    VERSION,
    NullObserver,
    Observer,
    Rejected,
    ReliableSink,
    Retry,
    keeper,
    never,
    resumed,
)
from operators.errors import DataError, FatalError, RetryableError
from operators.stored import Stored, stored

log = logging.getLogger(__name__)

QUEUE: Final = 1_000
"""The most items that wait for one partition; a snapshot holds them all."""
CLOSE_S: Final = 5.0
"""How long a partition may continue to send when the flow ends, in seconds."""

FULL, BUDGET, FAULT, CLOSED = "full", "budget", "fault", "closed"
"""The reasons why items are dropped."""

_QUEUE_VERSION: Final = 1


class ChannelPartition(StatefulSinkPartition[Message, Stored]):
    """One open partition of a `ChannelSink`. Only `close` waits for the system, for at most `close_s`."""

    def __init__(
        self,
        name: str,
        opened: Callable[[], Writer[Message]],
        waiting: list[Message],
        retry: Callable[[Callable[[], bool]], Retry],
        rejected: Rejected,
        observer: Observer,
        clock: Clock,
        queue: int,
        close_s: float,
    ) -> None:
        self._name = name
        self._opened = opened
        self._writer: Writer[Message] | None = None
        self._rejected = rejected
        self._observer = observer
        self._clock = clock
        self._most = queue
        self._close_s = close_s
        self._waiting = deque((item, clock.monotonic()) for item in waiting)  # the first stays until sent or dropped
        self._changed = threading.Condition()
        self._closing = False
        self._given_up = False  # `close` has waited long enough, and has counted the rest as dropped
        self._dropped = 0  # items dropped since the system last took one
        self._retry = retry(lambda: self._given_up)
        self._thread = threading.Thread(target=self._run, name=f"sink {name}", daemon=True)
        self._thread.start()

    def write_batch(self, values: list[Message]) -> None:
        """Add the items to the queue; those that have no room are dropped."""
        now = self._clock.monotonic()
        with self._changed:
            room = max(self._most - len(self._waiting), 0)
            self._waiting.extend((item, now) for item in values[:room])
            self._changed.notify()
        if len(values) > room:
            self._drop(FULL, len(values) - room, f"{self._most} items wait for it already")

    def snapshot(self) -> Stored:
        """The waiting items, for the successor; a writer at best effort has no state of its own."""
        waiting = tuple(_packed(item) for item in self.waiting())
        return stored((VERSION, (_QUEUE_VERSION, waiting) if waiting else None))

    def waiting(self) -> list[Message]:
        """The items that are neither sent nor dropped, in order; the first one may be on its way."""
        with self._changed:
            return [item for item, _ in self._waiting]

    def close(self) -> None:
        """Wait at most `close_s` for the waiting items to be sent, and drop the rest. Never raises."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(self._close_s)
        with self._changed:
            self._given_up = True
            left = len(self._waiting)
        if left:
            self._drop(CLOSED, left, "the flow ended before")

    def _run(self) -> None:
        while (found := self._next()) is not None:
            begin = self._clock.monotonic()
            error = self._give(*found)
            with self._changed:
                if self._given_up:
                    return
                self._waiting.popleft()
            self._tell(found[0], error, self._clock.monotonic() - begin)
        if self._writer is not None:
            try:
                self._writer.close()
            except Exception as e:  # noqa: BLE001 - an error at the end harms nothing any more
                log.warning("closing sink %s: %s", self._name, e)

    def _next(self) -> tuple[Message, float] | None:
        """The first waiting item, which stays in the queue, and the time when it came; None at the end."""
        with self._changed:
            while not self._waiting:
                if self._closing:
                    return None
                self._changed.wait()
            return None if self._given_up else self._waiting[0]

    def _give(self, item: Message, since: float) -> Exception | None:
        """Try until the system has taken the item; returns None, or the error that prevented it."""
        try:
            self._retry(lambda: self._try(item), since)
        except Exception as e:  # noqa: BLE001 - no fault of the writer may leave this thread
            return e
        return None

    def _try(self, item: Message) -> None:
        if self._writer is None:
            self._writer = self._opened()
        self._writer.write([item])

    def _tell(self, item: Message, error: Exception | None, seconds: float) -> None:
        match error:
            case None:
                self._observer.written(self._name, 1, seconds)
                with self._changed:
                    dropped, self._dropped = self._dropped, 0
                if dropped:
                    log.warning("sink %s takes items again; it gave up %d", self._name, dropped)
            case DataError():
                self._observer.rejected(self._name, error.reason)
                self._keep(item, error)
            case FatalError():
                self._drop(BUDGET if isinstance(error.__cause__, RetryableError) else FAULT, 1, str(error))
            case _:
                self._drop(FAULT, 1, f"{type(error).__name__}: {error}")

    def _keep(self, item: Message, error: DataError) -> None:
        try:
            self._rejected(self._name, item, error)
        except Exception as e:  # noqa: BLE001 - a full disk ends the flow by the sinks that must not lose items
            log.warning("sink %s refused an item, which could not be kept: %s", self._name, e)

    def _drop(self, reason: str, items: int, why: str) -> None:
        with self._changed:
            first = not self._dropped
            self._dropped += items
        if first:  # log once until an item is taken again
            log.warning("sink %s gives up items: %s", self._name, why)
        self._observer.dropped(self._name, reason, items)


class ChannelSink(FixedPartitionedSink[Message, Stored]):
    """A Bytewax sink of (key, message) that gives the messages to the factory's writers one by one, beside the flow.

    Each partition holds at most `queue` items and has a thread of its own. An item is tried at least once, and again
    until `budget_s` has passed since it came. The factory must know its partitions without asking its system.
    """

    def __init__(
        self,
        factory: WriterFactory[Message],
        config: ReliabilityConfig,
        *,
        rejected: Rejected | None = None,
        observer: Observer | None = None,
        clock: Clock = time,
        queue: int = QUEUE,
        close_s: float = CLOSE_S,
    ) -> None:
        self._factory = factory
        self._config = config
        self._rejected = rejected or keeper(config)
        self._observer = observer or NullObserver()
        self._clock = clock
        self._queue = queue
        self._close_s = close_s

    def list_parts(self) -> list[str]:
        """The partitions of the factory."""
        return self._factory.partitions()

    def part_fn(self, item_key: str) -> int:
        """The partition that writes this key."""
        return self._factory.route(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: State | None) -> ChannelPartition:
        """A partition that begins with the waiting items of the snapshot; its writer is opened for the first item."""
        name = self._factory.name

        def retry(stopping: Callable[[], bool]) -> Retry:
            return Retry(name, for_part, self._config, self._observer, stopping, self._clock)

        return ChannelPartition(
            name,
            lambda: self._factory.open(for_part, None),
            _unpacked(name, resumed(name, for_part, resume_state)),
            retry,
            self._rejected,
            self._observer,
            self._clock,
            self._queue,
            self._close_s,
        )


def sink_of(
    guarantee: Guarantee,
    factory: WriterFactory[Message],
    config: ReliabilityConfig,
    *,
    at_once: bool = False,
    stopping: Callable[[], bool] = never,
    rejected: Rejected | None = None,
    observer: Observer | None = None,
    clock: Clock = time,
) -> ReliableSink[Message] | ChannelSink:
    """The Bytewax sink that gives messages to the factory's writers in the way that their guarantee requires."""
    if guarantee == "best_effort":
        return ChannelSink(factory, config, rejected=rejected, observer=observer, clock=clock)
    return ReliableSink(
        factory,
        config,
        at_once=at_once,
        singly=guarantee == "at_least_once",
        stopping=stopping,
        rejected=rejected,
        observer=observer,
        clock=clock,
    )


def _packed(item: Message) -> State:
    return (item.id, item.key, tuple(item.headers.items()), item.value, item.at)


def _unpacked(sink: str, state: State | None) -> list[Message]:
    match state:
        case None:
            return []
        case (1, tuple(waiting)):
            return [Message(item_id, key, dict(headers), value, at) for item_id, key, headers, value, at in waiting]
    raise FatalError(
        f"the items that wait for sink {sink} are stored in version {state[:1]}, this program reads version "
        f"{_QUEUE_VERSION}: resume with the program that wrote it, or start with a new recovery folder"
    )
