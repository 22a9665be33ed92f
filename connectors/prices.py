"""The shipped price table, and that of a file of one's own, which is read again when the file changes."""

from __future__ import annotations

import logging
import threading
import time
import tomllib
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Final

from operators.enrich import pricing
from operators.enrich.pricing import PriceTable
from operators.errors import ConfigError

log = logging.getLogger(__name__)

EVERY_S = 5.0
"""How often at most the file is checked for changes, in seconds."""

SHIPPED: Final = Path(__file__).with_name("prices.toml")
"""The prices of common public models, part of the package."""

Stamp = tuple[int, int, int]


class PriceFile:
    """Gives the present table of the file; keeps the last good one while the file is broken or gone.

    The clock decides when a change is noticed, so a change counts as one of configuration: priced events keep their
    price. Prices with a future date hold from that date on in every process that has noticed them before. `loaded` gets
    whether a new version of the file was usable. Several worker threads may share one object.

    Raises `ConfigError` where the file is wrong at the start.
    """

    def __init__(
        self,
        path: Path,
        loaded: Callable[[bool], None] = lambda good: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._loaded = loaded
        self._clock = clock
        self._lock = threading.Lock()
        self._looked = clock()
        self._stamp = self._stat()
        self._table = load(path)
        log.info("%s from %s", described(self._table), path)

    def __call__(self) -> PriceTable:
        """The table; checks the file at most every few seconds."""
        with self._lock:
            now = self._clock()
            if now - self._looked >= EVERY_S:
                self._looked = now
                stamp = self._stat()
                if stamp != self._stamp:
                    self._stamp = stamp
                    self._read_again()
            return self._table

    def _read_again(self) -> None:
        try:
            self._table = load(self._path)
        except ConfigError as error:
            log.error("%s; the prices read before stay in force", error)
            self._loaded(False)
            return
        log.info("read %s from %s again, for it has changed", described(self._table), self._path)
        self._loaded(True)

    def _stat(self) -> Stamp | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


@cache
def shipped() -> PriceTable:
    """The table of `SHIPPED`, read once."""
    return load(SHIPPED)


def described(table: PriceTable) -> str:
    """The table in a few words: its number of prices, and their day if it is known."""
    return f"{len(table)} prices" + (f" of {table.gathered}" if table.gathered else "")


def load(path: Path) -> PriceTable:
    """The table of a TOML file. Raises `ConfigError` where it cannot be read or is not a price table."""
    try:
        tree = tomllib.loads(path.read_bytes().decode("utf-8"), parse_float=Decimal)
    except OSError as error:
        raise ConfigError(f"the price file {path} (enrich.prices) cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"the price file {path} (enrich.prices) is not UTF-8 (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the price file {path} (enrich.prices) is not TOML: {error}") from None
    try:
        return pricing.read(tree)
    except ConfigError as error:
        raise ConfigError(f"the price file {path} (enrich.prices): {error}") from None
