"""What the partitions of all processes tell, where each process has only some of them (`recovery.layout = "own"`).

Before Bytewax connects the processes, process 0 listens on its own address, the very one that Bytewax takes right
afterwards. Each of the others tells it its shares and stays connected; when all are there, process 0 stops listening
and gives everyone the shares of all. Only then does anybody go on to Bytewax, so that nobody's Bytewax meets this
listener and takes it for a peer.

A process that comes back alone says its line to a Bytewax that waits for it: that one ends, for the line is no
handshake of Bytewax, and all meet here when they are started again.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import astuple
from typing import Any, Final

import orjson

from flows.rewind import Share
from operators.errors import ConfigError

log = logging.getLogger(__name__)

VERSION: Final = 1
LINE_BYTES: Final = 1 << 18
"""The most that a process may tell: some thirty bytes for each worker of the last two runs."""
LINE_S: Final = 2.0
"""How long a connection may take to be made, and whoever made one to tell its shares."""
SILENCE_S: Final = 10.0
"""How long process 0 may be silent to those who wait: it says an empty line every `TICK_S`."""
TICK_S: Final = 0.2
PAUSES_S: Final = (0.1, 2.0)
"""Before process 0 is asked again: the first time, and at most."""
SAY_S: Final = 10.0


class Stopped(Exception):
    """A stop was asked for while the others were waited for."""


class Wait:
    """Looks whether to stop, and says now and then what is waited for."""

    def __init__(self, stopping: Callable[[], bool]) -> None:
        self._stopping = stopping
        self._next = time.monotonic() + SAY_S

    def look(self, text: str) -> None:
        """Raises `Stopped` where a stop was asked for."""
        if self._stopping():
            raise Stopped
        if time.monotonic() >= self._next:
            log.info("%s", text)
            self._next = time.monotonic() + SAY_S

    def rest(self, seconds: float, text: str) -> None:
        """Wait so long."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.look(text)
            time.sleep(min(left, TICK_S))


def gather(addresses: Sequence[str], process: int, own: Sequence[Share], stopping: Callable[[], bool]) -> list[Share]:
    """The shares of all processes, once each has told its `own`; raises `Stopped` as soon as a stop is asked for."""
    wait = Wait(stopping)
    return _Hub(addresses, own, wait).collect() if process == 0 else _given(addresses, process, own, wait)


class _Hub:
    """Process 0: hears the others one by one, and keeps their connections until it has heard all."""

    def __init__(self, addresses: Sequence[str], own: Sequence[Share], wait: Wait) -> None:
        self._addresses = addresses
        self._own = own
        self._wait = wait
        self._peers: dict[int, tuple[socket.socket, list[Share]]] = {}
        self._fault = "none came yet"

    def collect(self) -> list[Share]:
        try:
            with self._listener() as listener:
                while len(self._peers) < len(self._addresses) - 1:
                    self._wait.look(self._text())
                    self._hear(listener)
                    for number in [number for number, (peer, _) in self._peers.items() if not _alive(peer)]:
                        self._peers.pop(number)[0].close()
            told = [*self._own, *(share for _, shares in self._peers.values() for share in shares)]
            for peer, _ in self._peers.values():
                with suppress(OSError):  # it will ask again, and so end the Bytewax of this process
                    peer.settimeout(LINE_S)
                    peer.sendall(_line(all=[astuple(share) for share in told]))
            return told
        finally:
            for peer, _ in self._peers.values():
                peer.close()

    def _text(self) -> str:
        missing = ", ".join(str(n) for n in range(1, len(self._addresses)) if n not in self._peers)
        return f"waiting on {self._addresses[0]} for process {missing} of {len(self._addresses)} ({self._fault})"

    def _listener(self) -> socket.socket:
        """On the own address, as soon as it can be had: its name may be new, what listened there may be just ending."""
        while True:
            try:
                return _opened(self._addresses[0])
            except (OSError, ValueError) as error:
                self._fault = str(error)
                self._wait.rest(TICK_S, self._text())

    def _hear(self, listener: socket.socket) -> None:
        """Let in the next one that comes, if one does before long."""
        try:
            peer, (host, *_) = listener.accept()
        except TimeoutError:
            return
        try:
            message = _message(peer, LINE_BYTES, LINE_S, lambda: self._wait.look(self._text()))
            number, processes, shares = message.get("process"), message.get("processes"), _shares(message.get("shares"))
            if type(number) is not int or not 0 < number < len(self._addresses) or processes != len(self._addresses):
                raise ValueError(f"it is process {number!r} of {processes!r}")
            peer.setblocking(False)
        except (OSError, ValueError) as error:
            self._fault = f"the last one from {host}: {error}"
            peer.close()
            return
        except Stopped:
            peer.close()
            raise
        if number in self._peers:  # it was started again
            self._peers[number][0].close()
        self._peers[number] = peer, shares


def _opened(address: str) -> socket.socket:
    fault = OSError(f"{address} has no address of this machine")
    for family, _, _, _, found in socket.getaddrinfo(*_split(address), type=socket.SOCK_STREAM):
        try:
            listener = socket.create_server(found, family=family)
        except OSError as error:
            fault = error
            continue
        listener.settimeout(TICK_S)
        return listener
    raise fault


def _alive(peer: socket.socket) -> bool:
    """Whether it still waits, which it is told to do."""
    try:
        peer.send(b"\n")
        peer.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False  # it has ended, or says more than there is to say


def _given(addresses: Sequence[str], process: int, own: Sequence[Share], wait: Wait) -> list[Share]:
    """What process 0 gives to another one."""
    address = _split(addresses[0])
    line = _line(process=process, processes=len(addresses), shares=[astuple(share) for share in own])
    most = LINE_BYTES * len(addresses)
    text = f"connected to process 0 at {addresses[0]}, which waits for others"
    pause, longest = PAUSES_S
    while True:
        try:
            with socket.create_connection(address, timeout=LINE_S) as hub:
                hub.sendall(line)
                return _shares(_message(hub, most, SILENCE_S, lambda: wait.look(text), beats=True).get("all"))
        except (OSError, ValueError) as error:
            wait.rest(pause, f"waiting for process 0 at {addresses[0]} ({error})")
            pause = min(2 * pause, longest)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f"the address {address!r} of a process is not host:port; set it as -a or in the addresses")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _line(**what: object) -> bytes:
    return orjson.dumps({"version": VERSION, **what}, option=orjson.OPT_APPEND_NEWLINE)


def _message(
    sock: socket.socket, most: int, seconds: float, look: Callable[[], None], beats: bool = False
) -> dict[str, Any]:
    """The object on the next line, which must be whole within so many seconds and no longer than `most` bytes.

    With `beats` there may be empty lines before it, and each starts the time anew. Raises `OSError` where it does not
    come, `ValueError` where what comes is none of ours.
    """
    sock.settimeout(TICK_S)
    until, said = time.monotonic() + seconds, b""
    while b"\n" not in said:
        look()
        if time.monotonic() > until:
            raise TimeoutError("it said nothing in time")
        try:
            chunk = sock.recv(1 << 16)
        except TimeoutError:
            continue
        if not chunk:
            raise ConnectionError("it closed the connection")
        said += chunk
        if beats and not (said := said.lstrip(b"\n")):
            until = time.monotonic() + seconds
        elif not said.startswith(b"{") or len(said) > most:
            raise ValueError("what it said is not of this program")
    message = orjson.loads(said.partition(b"\n")[0])
    if not isinstance(message, dict) or message.get("version") != VERSION:
        raise ValueError("it is of another release")
    return message


def _shares(told: Any) -> list[Share]:
    try:
        return [
            Share(_number(number), _number(partitions), _threes(executions), _threes(fronts))
            for number, partitions, executions, fronts in told
        ]
    except (TypeError, ValueError) as error:
        raise ValueError("it told no shares of a recovery store") from error


def _number(value: object) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _threes(values: Any) -> tuple[tuple[int, int, int], ...]:
    return tuple((_number(a), _number(b), _number(c)) for a, b, c in values)
