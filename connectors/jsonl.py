"""Alerts or dead letters as JSON lines in a file, each exactly once, also over kill -9 at any moment."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import orjson

from connectors.base import Message, State
from connectors.config import JsonlConfig
from connectors.once import Once
from operators.errors import ConfigError, DataError, FatalError, RetryableError
from operators.incidents.alert_json import microseconds

log = logging.getLogger(__name__)

_BLOCK: Final = 1 << 20
_SENTENCES: Final = {
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "the quota of the disk is used up: make room",
    errno.EROFS: "its file system is read-only: set another path",
}
_PASSING: Final = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


class JsonlWriter:
    """Appends each write and forces it to the disk; `key` is the field of a line that holds the record's id.

    Opening locks the file for as long as the writer lives, cuts off a torn last line, and reads back the lines after
    the position in the snapshot. Cost: one fsync for each write.
    """

    def __init__(self, path: Path, key: str, resume: State | None) -> None:
        self._path = path
        self._key = key
        self._once = Once.load(resume)
        if not path.parent.is_dir():
            raise ConfigError(f"the file {path} has no folder {path.parent}: make it, or set another path")
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as e:
            raise ConfigError(f"the file {path} cannot be opened for writing: {e.strerror}") from e
        try:
            self._lock()
            self._read_back()
        except OSError as e:
            os.close(self._fd)
            self._fail(e)
        except BaseException:
            os.close(self._fd)
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise RetryableError(f"another process writes the file {self._path}") from e

    def _read_back(self) -> None:
        size = os.fstat(self._fd).st_size
        start = self._once.end
        if start > size or (start and os.pread(self._fd, 1, start - 1) != b"\n"):
            log.warning("the file %s is not the one that was written before; reading it from its start", self._path)
            start = self._once.end = 0
        rest, at = b"", start
        while block := os.pread(self._fd, _BLOCK, at):
            at += len(block)
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            for line in lines:
                start += len(line) + 1
                self._saw(line, start)
        if rest:
            log.warning("the last line of %s was cut short by a crash; it is removed and written again", self._path)
            os.ftruncate(self._fd, start)
        os.fsync(self._fd)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)  # a new file is only durable with its folder
        finally:
            os.close(folder)

    def _saw(self, line: bytes, end: int) -> None:
        try:
            record = orjson.loads(line)
            self._once.saw(str(record[self._key]), end, _time(record.get("at")))
        except (ValueError, KeyError, TypeError, AttributeError):
            self._once.passed(end)  # another program's line, which stays

    def write(self, items: Sequence[Message]) -> None:
        """Append the items that are not in the file yet; if this raises, the file is as before."""
        for item in items:
            if b"\n" in item.value:
                raise DataError("bad_row", f"{item.id} is not one line of JSON")
        fresh = self._once.fresh(items)
        end = self._once.end
        if fresh:
            if not os.fstat(self._fd).st_nlink:
                raise FatalError(f"the file {self._path} was removed while it was written: start again")
            data = b"".join(item.value + b"\n" for item in fresh)
            try:
                done = 0
                while done < len(data):
                    done += os.pwrite(self._fd, data[done:], end + done)
                os.fsync(self._fd)
            except OSError as e:
                self._cut(end)
                self._fail(e)
            end += len(data)
        self._once.wrote(items, end)

    def _cut(self, end: int) -> None:
        try:
            os.ftruncate(self._fd, end)
        except OSError:
            log.warning("the file %s could not be cut back to its last whole line", self._path)

    def _fail(self, e: OSError) -> NoReturn:
        why = _SENTENCES.get(e.errno or 0, f"writing failed: {e.strerror}")
        kind = RetryableError if e.errno in _PASSING else FatalError
        raise kind(f"the file {self._path}: {why}") from e

    def snapshot(self) -> State | None:
        """The end of the file, and the ids that may come again."""
        return self._once.state()

    def close(self) -> None:
        """Close the file and release its lock."""
        os.close(self._fd)


def _time(text: object) -> int:
    """Microseconds of an RFC 3339 time; 0 if the value is none."""
    try:
        return microseconds(text) if isinstance(text, str) else 0
    except ValueError:
        return 0


class JsonlFactory:
    """A file of JSON lines as a sink: one partition.

    `name` is for logs and metrics; `key` names the field that holds a record's id: `alert_id` of alerts.
    """

    def __init__(self, config: JsonlConfig, name: str = "jsonl", key: str = "alert_id") -> None:
        self.name = name
        self._path = config.path
        self._key = key

    def partitions(self) -> list[str]:
        """The one partition."""
        return ["jsonl"]

    def route(self, key: str) -> int:
        """Every key goes to the one partition."""
        return 0

    def open(self, partition: str, resume: State | None) -> JsonlWriter:
        """Lock the file and read it back. Raises `RetryableError` while another process holds it."""
        return JsonlWriter(self._path, self._key, resume)

    def ask(self) -> str:
        """Check whether the file may be written, without a writer, which would lock it and cut a half-written line."""
        if not self._path.parent.is_dir():
            raise ConfigError(f"the file {self._path} has no folder {self._path.parent}: make it, or set another path")
        if not os.access(self._path if self._path.exists() else self._path.parent, os.W_OK):
            raise ConfigError(f"the file {self._path} cannot be opened for writing: check its permissions")
        return "the file can be written"
