"""Counts keys in processes with a volume each: `SETTLED=1 DIES=... python -m bytewax.run tests.flows.volume_flow ...`.

Each key comes once, and its count is printed. SETTLED=1: the processes remove unfinished snapshots before they start.
DIES=storing: all keys come in one batch, and process 1 dies after process 0 has stored its snapshots of that epoch.
DIES=reading: the keys come one by one, and the reading process dies at the third. SHARED=1: all share one folder.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import bytewax.operators as op
from bytewax.connectors.stdio import StdOutSink
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import StatefulLogic

from flows.recovery import store
from flows.recovery.joining import join

KEYS = [f"key-{number}" for number in range(40)]
STORED_S = 2.0
"""How long process 1 waits for process 0 to store its snapshots of the first epoch, in seconds."""
WHERE = store.place(sys.argv[1:], os.environ)
DIES = os.environ.get("DIES", "")
CONNECTED = threading.Event()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Keys(StatefulSourcePartition[tuple[str, int], int]):
    def __init__(self, at: int) -> None:
        self._at = at
        self._polls = 0

    def next_batch(self) -> list[tuple[str, int]]:
        if self._at == len(KEYS):
            raise StopIteration
        self._polls += 1
        if DIES == "reading" and self._polls == 3:
            time.sleep(0.5)  # so that both processes know that the first epoch is over
            die()
        upto = len(KEYS) if DIES == "storing" else self._at + 1
        batch, self._at = KEYS[self._at : upto], upto
        return [(key, 1) for key in batch]

    def snapshot(self) -> int:
        return self._at


class Source(FixedPartitionedSource[tuple[str, int], int]):
    def list_parts(self) -> list[str]:
        CONNECTED.set()
        return ["only"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> Keys:
        return Keys(resume_state or 0)


class Count(StatefulLogic[int, int, int]):
    def __init__(self, count: int | None) -> None:
        self._count = count or 0

    def on_item(self, value: int) -> tuple[list[int], bool]:
        self._count += value
        return [self._count], StatefulLogic.RETAIN

    def snapshot(self) -> int:
        if DIES == "storing" and WHERE.process == 1:
            time.sleep(STORED_S)
            die()
        return self._count


def flow() -> Dataflow:
    held = store.claim(WHERE, 1, 1, "keys", "shared" if os.environ.get("SHARED") == "1" else "own")
    assert held is not None and WHERE.folder is not None
    HELD.append(held)
    dataflow = Dataflow("volumes")
    counts = op.stateful("count", op.input("keys", dataflow, Source()), Count)
    op.output("out", op.map("line", counts, lambda item: f"{item[0]} {item[1]}"), StdOutSink())
    if os.environ.get("SETTLED") == "1":
        join(WHERE, WHERE.folder, CONNECTED)
    return dataflow


HELD: list[store.Held] = []
