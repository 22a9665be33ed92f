"""What the partitions of all processes tell, where each process has only some of them (`recovery.layout = "own"`).

Before Bytewax connects the processes, process 0 listens on its own address, the very one that Bytewax takes right
afterwards. Each of the others tells it its shares and stays connected; when all are there, process 0 stops listening
and gives everyone the shares of all. Only then does anybody go on to Bytewax, so that nobody's Bytewax meets this
listener and takes it for a peer.

A process that comes back alone says its line to a Bytewax that waits for it: that one ends, for the line is no
handshake of Bytewax, and all meet here when they are started again.

What is told decides which snapshots are removed, so each side proves to the other that it knows the token of the
cluster (`recovery.token`) without saying it:

    process i -> process 0    hello: its number, and a nonce
    process 0 -> process i    a nonce of its own, signed
    process i -> process 0    its shares, signed
    process 0 -> process i    empty lines while others are waited for, then the shares of all, signed

A signature is an HMAC of the line by a key made of the token, both nonces and the number: it holds for one side of one
connection alone. A connection that cannot sign is closed, counted and told, and changes nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import astuple
from typing import Any, Final

import orjson

from connectors.backoff import pause_s
from flows.recovery.rewind import Share
from operators.errors import ConfigError

log = logging.getLogger(__name__)

VERSION: Final = 2
GREETING_BYTES: Final = 512
"""The most that a hello, and the answer to it, may be."""
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


_NONCE_BYTES: Final = 16
_NOT_OURS: Final = "what it said is not of this program"


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


def check_token(addresses: Sequence[str], token: str | None) -> None:
    """ConfigError where process 0 would listen for others than this host's and there is no token to know them by."""
    host, _ = _split(addresses[0])
    if token is None and not _is_loopback(host):
        raise ConfigError(
            f"process 0 listens on {addresses[0]}, which other hosts can reach, and recovery.token is not set: give "
            "all processes the same one, of 16 characters at least (`openssl rand -hex 32`), in the variable "
            "SENTINEL_RECOVERY__TOKEN or the settings file"
        )


def _is_loopback(host: str) -> bool:
    """By the address itself: what a name means may change between this look and the listening."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def gather(
    addresses: Sequence[str],
    process: int,
    own: Sequence[Share],
    stopping: Callable[[], bool],
    token: str | None = None,
) -> list[Share]:
    """The shares of all processes, once each has told its `own`; raises `Stopped` as soon as a stop is asked for.

    All of them must have the same token; one that has another is waited for. Without a token, which `check_token`
    allows on loopback alone, every connection is believed.
    """
    check_token(addresses, token)
    wait, key = Wait(stopping), (token or "").encode()
    return _Hub(addresses, own, wait, key).collect() if process == 0 else _given(addresses, process, own, wait, key)


class Seal:
    """Signs and checks the lines of one connection."""

    def __init__(self, token: bytes, process: int, processes: int, theirs: str, ours: str) -> None:
        """`theirs` is the nonce of the process that connects, `ours` that of process 0."""
        purpose = orjson.dumps(["llm-sentinel gather", VERSION, process, processes, theirs, ours])
        self._key = hmac.digest(token, purpose, hashlib.sha256)

    def _signature(self, side: str, body: bytes) -> bytes:
        return hmac.digest(self._key, side.encode() + b"\n" + body, hashlib.sha256).hex().encode()

    def sign(self, side: str, **what: object) -> bytes:
        """A line of this side (`hub`, `shares` or `all`)."""
        body = orjson.dumps({"version": VERSION, **what})
        return body + b" " + self._signature(side, body) + b"\n"

    def open(self, side: str, line: bytes) -> dict[str, Any]:
        """What a line of this side says; ValueError where its sender does not know the token."""
        body, _, signature = line.rpartition(b" ")
        if not hmac.compare_digest(signature, self._signature(side, body)):
            raise ValueError("it has another recovery.token, or none")
        return _object(body)


class _Hub:
    """Process 0: hears the others one by one, and keeps their connections until it has heard all."""

    def __init__(self, addresses: Sequence[str], own: Sequence[Share], wait: Wait, token: bytes) -> None:
        self._addresses = addresses
        self._token = token
        self._own = own
        self._wait = wait
        self._peers: dict[int, tuple[socket.socket, Seal, list[Share]]] = {}
        self._fault = "none came yet"
        self._strangers = 0

    def collect(self) -> list[Share]:
        try:
            with self._listener() as listener:
                while len(self._peers) < len(self._addresses) - 1:
                    self._wait.look(self._text())
                    self._hear(listener)
                    for number in [number for number, (peer, *_) in self._peers.items() if not _alive(peer)]:
                        self._peers.pop(number)[0].close()
            told = [*self._own, *(share for *_, shares in self._peers.values() for share in shares)]
            for peer, seal, _ in self._peers.values():
                with suppress(OSError):  # it will ask again, and so end the Bytewax of this process
                    peer.settimeout(LINE_S)
                    peer.sendall(seal.sign("all", all=[astuple(share) for share in told]))
            return told
        finally:
            for peer, *_ in self._peers.values():
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
            number, seal, shares = self._met(peer)
            peer.setblocking(False)
        except (OSError, ValueError) as error:
            self._strangers += 1
            self._fault = f"connections that were none of them: {self._strangers}, the last from {host}: {error}"
            if self._strangers == 1:
                log.warning("a connection from %s is refused: %s", host, error)
            peer.close()
            return
        except Stopped:
            peer.close()
            raise
        if number in self._peers:  # it was started again
            self._peers[number][0].close()
        self._peers[number] = peer, seal, shares

    def _met(self, peer: socket.socket) -> tuple[int, Seal, list[Share]]:
        """The number of a process that has proven to be one of these, how to answer it, and its shares."""

        def look() -> None:
            self._wait.look(self._text())

        until, processes = time.monotonic() + LINE_S, len(self._addresses)
        hello = _object(_heard(peer, GREETING_BYTES, until, look))
        number, nonce = hello.get("process"), hello.get("nonce")
        if type(number) is not int or not 0 < number < processes or hello.get("processes") != processes:
            raise ValueError("it is no process of a cluster of this size")
        if not isinstance(nonce, str):
            raise ValueError(_NOT_OURS)
        ours = secrets.token_hex(_NONCE_BYTES)
        seal = Seal(self._token, number, processes, nonce, ours)
        peer.settimeout(LINE_S)
        peer.sendall(seal.sign("hub", nonce=ours))
        told = seal.open("shares", _heard(peer, LINE_BYTES, until, look))
        return number, seal, _shares(told.get("shares"))


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


def _given(addresses: Sequence[str], process: int, own: Sequence[Share], wait: Wait, token: bytes) -> list[Share]:
    """What process 0 gives to another one."""
    address, processes = _split(addresses[0]), len(addresses)
    most = LINE_BYTES * processes
    text = f"connected to process 0 at {addresses[0]}, which waits for others"
    failures = 0
    while True:
        try:
            with socket.create_connection(address, timeout=LINE_S) as hub:
                mine = secrets.token_hex(_NONCE_BYTES)
                hub.sendall(_line(process=process, processes=processes, nonce=mine))
                line = _heard(hub, GREETING_BYTES, time.monotonic() + SILENCE_S, lambda: wait.look(text))
                theirs = _object(line.rpartition(b" ")[0]).get("nonce")
                if not isinstance(theirs, str):
                    raise ValueError(_NOT_OURS)
                seal = Seal(token, process, processes, mine, theirs)
                seal.open("hub", line)
                hub.sendall(seal.sign("shares", shares=[astuple(share) for share in own]))
                return _shares(seal.open("all", _awaited(hub, most, lambda: wait.look(text))).get("all"))
        except (OSError, ValueError) as error:
            failures += 1
            pause = pause_s(f"process {process}", failures, *PAUSES_S)
            wait.rest(pause, f"waiting for process 0 at {addresses[0]} ({error})")


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f"the address {address!r} of a process is not host:port; set it as -a or in the addresses")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _line(**what: object) -> bytes:
    return orjson.dumps({"version": VERSION, **what}, option=orjson.OPT_APPEND_NEWLINE)


def _received(sock: socket.socket, until: float, look: Callable[[], None]) -> bytes:
    """The bytes that come next; `OSError` where none come by then or the connection ends."""
    sock.settimeout(TICK_S)
    while True:
        look()
        if time.monotonic() > until:
            raise TimeoutError("it said nothing in time")
        try:
            chunk = sock.recv(1 << 16)
        except TimeoutError:
            continue
        if not chunk:
            raise ConnectionError("it closed the connection")
        return chunk


def _heard(sock: socket.socket, most: int, until: float, look: Callable[[], None], said: bytes = b"") -> bytes:
    """The next line, whole by then, no longer than `most` bytes and begun as an object, with what was `said` of it.

    Raises `OSError` where it does not come, `ValueError` where what comes is none of ours.
    """
    while b"\n" not in said:
        said += _received(sock, until, look)
        if not said.startswith(b"{") or len(said) > most:
            raise ValueError(_NOT_OURS)
    return said.partition(b"\n")[0]


def _awaited(sock: socket.socket, most: int, look: Callable[[], None], seconds: float = SILENCE_S) -> bytes:
    """The next line that is not empty. Empty ones, no further apart than this, say that others are still waited for."""
    until = time.monotonic() + seconds
    while True:
        chunk = _received(sock, until, look)
        until = time.monotonic() + seconds
        if said := chunk.lstrip(b"\n"):
            if not said.startswith(b"{"):
                raise ValueError(_NOT_OURS)
            return _heard(sock, most, until, look, said)


def _object(text: bytes) -> dict[str, Any]:
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError(_NOT_OURS) from None
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
