"""GreptimeDB as a sink of rows, by its official client: gRPC row inserts, which replace rows of the same key.

The client's errors tell only whether the failure came before sending (`retriable` is False: the row cannot be encoded)
or after it (True for all causes: the server is away or busy, the password is wrong, or it refuses a row). A control
distinguishes these: if the server takes a row again that it took before, but refuses the chunk, the chunk is at fault.
A missing answer is no refusal; it is known by the time that it took.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

from greptimedb_ingester import Client, GreptimeError

from connectors.base import Row, State
from connectors.config import GreptimeConfig
from connectors.greptime.encoding import COLUMNS, Values, batches
from operators.errors import ConfigError, DataError, RetryableError
from operators.series import rank

log = logging.getLogger(__name__)

_ROUNDS: Final = 3
"""How often a chunk must be refused, each time while a control is taken, before its rows count as bad."""


class _NoAnswer(RetryableError):
    """The server did not answer in time, which tells nothing about the rows."""


class GreptimeWriter:
    """Writes each chunk by one request for each table; the first request makes the table."""

    def __init__(self, client: Client, config: GreptimeConfig) -> None:
        self._client = client
        self._config = config
        self._endpoint = config.endpoint
        self._late_s = 0.9 * config.timeout_s
        self._taken: dict[str, Values] = {}  # the last row of each table that the server took

    def write(self, items: Sequence[Row]) -> None:
        """Insert the rows; if this raises, some may be there, and the next try replaces them."""
        for table, rows in batches(items):
            try:
                self._insert(table, rows)
            except _NoAnswer:
                raise
            except RetryableError as e:
                if self._at_fault(table, rows):
                    raise DataError("refused", f"GreptimeDB refuses it while it takes other rows: {e}") from e
                raise
            self._taken[table] = rows[-1]

    def _insert(self, table: str, rows: list[Values]) -> None:
        begin = time.monotonic()
        try:
            self._client.insert(table, COLUMNS[table], rows)
        except GreptimeError as e:
            if e.retriable:
                late = time.monotonic() - begin >= self._late_s
                said = self._config.masked(str(e))
                raise (_NoAnswer if late else RetryableError)(f"GreptimeDB at {self._endpoint}: {said}") from None
            raise DataError("bad_row", self._config.masked(str(e))) from None

    def _at_fault(self, table: str, rows: list[Values]) -> bool:
        """Whether the server refuses the rows again and again, but takes a control each time."""
        control = self._control(table, rows)
        if control is None:
            return False
        for _ in range(_ROUNDS - 1):
            if not self._takes(table, [control]):
                return False
            if self._takes(table, rows):
                return False  # the server was at fault; the next try writes the rows again
        return True

    def _control(self, table: str, rows: list[Values]) -> Values | None:
        """A row that the server takes: one that it took before or, if there is none, the first or last of the chunk."""
        candidates = [self._taken[table]] if table in self._taken else [rows[0], rows[-1]] if len(rows) > 1 else []
        for row in candidates:
            if self._takes(table, [row]):
                self._taken[table] = row
                return row
        return None

    def _takes(self, table: str, rows: list[Values]) -> bool:
        try:
            self._insert(table, rows)
        except _NoAnswer:
            raise
        except RetryableError:
            return False
        return True

    def ping(self) -> None:
        """Ask the server whether it is there. Raises `RetryableError` where it does not answer."""
        try:
            self._client.health_check()
        except GreptimeError as e:
            said = self._config.masked(str(e))
            raise RetryableError(f"GreptimeDB at {self._endpoint} does not answer: {said}") from None

    def snapshot(self) -> State | None:
        """Nothing: a row written twice is one row."""
        return None

    def close(self) -> None:
        """Nothing to close: the connection ends with the client."""


class GreptimeFactory:
    """GreptimeDB as a sink of rows, over several fixed partitions, whose writers work in parallel."""

    name = "greptime"

    def __init__(self, config: GreptimeConfig) -> None:
        self._config = config

    def partitions(self) -> list[str]:
        """`greptime/00`, `greptime/01` and so on."""
        return [f"greptime/{i:02d}" for i in range(self._config.partitions)]

    def route(self, key: str) -> int:
        """By the shard, the part before the first `/`, so that all rows of a series have one writer, in order."""
        return rank(key.split("/", 1)[0]) % self._config.partitions

    def open(self, partition: str, resume: State | None) -> GreptimeWriter:
        """A writer with a client of its own, which connects at the first write.

        Raises `ConfigError` where its options or files are wrong.
        """
        c = self._config
        try:
            client = Client(
                [c.endpoint],
                database=c.database,
                username=c.username,
                password=c.password.get_secret_value() if c.password else None,
                timeout_secs=c.timeout_s,
                connect_timeout_secs=c.connect_timeout_s,
                tls_server_ca=str(c.tls_ca) if c.tls_ca else None,
                tls_client_cert=str(c.tls_cert) if c.tls_cert else None,
                tls_client_key=str(c.tls_key) if c.tls_key else None,
            )
        except GreptimeError as e:
            raise ConfigError(f"the GreptimeDB client refuses its settings: {c.masked(str(e))}") from None
        return GreptimeWriter(client, c)

    def ask(self) -> str:
        """Ask the server whether it is there."""
        self.open(self.partitions()[0], None).ping()
        return "the server answers"
