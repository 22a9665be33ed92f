"""Collects the shares of all processes where each holds only some of the partitions (`recovery.layout = "own"`).

Before Bytewax connects the processes, process 0 listens on its own address, which Bytewax takes right afterwards. Each
other process sends its shares and stays connected. When all have come, process 0 stops listening and sends everyone
the shares of all. No process starts Bytewax before, so no Bytewax can take this listener for a peer.

A process that comes back alone sends its line to a Bytewax that waits for it. That Bytewax ends, since the line is no
handshake of its own, and all processes meet here when they are started again.

The shares decide which snapshots are removed, so each side proves that it knows the token of the cluster
(`recovery.token`) without sending it:

    process i -> process 0    hello: its number, and a nonce
    process 0 -> process i    a nonce of its own, signed
    process i -> process 0    its shares, signed
    process 0 -> process i    empty lines while it waits for others, then the shares of all, signed

A signature is an HMAC of the line by a key made of the token, both nonces and the number: it holds for one side of one
connection alone. A connection that cannot sign is closed, counted and logged, and changes nothing.
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
"""Largest size of a hello and of its answer."""
LINE_BYTES: Final = 1 << 18
"""Largest size of the line of one process: it holds some thirty bytes for each worker of the last two runs."""
LINE_S: Final = 2.0
"""How long connecting may take, and then sending the shares, in seconds."""
SILENCE_S: Final = 10.0
"""How long process 0 may be silent to a waiting process, in seconds: it sends an empty line every `TICK_S`."""
TICK_S: Final = 0.2
PAUSES_S: Final = (0.1, 2.0)
"""Before process 0 is asked again: the first time, and at most."""
SAY_S: Final = 10.0


_NONCE_BYTES: Final = 16
_NOT_OURS: Final = "what it said is not of this program"


class Stopped(Exception):
    """A stop signal came while this process waited for the others."""


class Wait:
    """Looks at the stop flag, and logs now and then what the process waits for."""

    def __init__(self, stopping: Callable[[], bool]) -> None:
        self._stopping = stopping
        self._next = time.monotonic() + SAY_S

    def look(self, text: str) -> None:
        """Raises `Stopped` after a stop signal."""
        if self._stopping():
            raise Stopped
        if time.monotonic() >= self._next:
            log.info("%s", text)
            self._next = time.monotonic() + SAY_S

    def rest(self, seconds: float, text: str) -> None:
        """Wait for this number of seconds; raises `Stopped`."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.look(text)
            time.sleep(min(left, TICK_S))


def check_token(addresses: Sequence[str], token: str | None) -> None:
    """Raises `ConfigError` where process 0 would listen for other hosts and no token tells its peers from strangers."""
    host, _ = _split(addresses[0])
    if token is None and not _is_loopback(host):
        raise ConfigError(
            f"process 0 listens on {addresses[0]}, which other hosts can reach, and recovery.token is not set: give "
            "all processes the same one, of 16 characters at least (`openssl rand -hex 32`), in the variable "
            "SENTINEL_RECOVERY__TOKEN or the settings file"
        )


def _is_loopback(host: str) -> bool:
    """Looks at the address itself: a name may resolve otherwise when process 0 listens."""
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
    """The shares of all processes, once each has sent its `own`; raises `Stopped` soon after a stop signal.

    All processes must have the same token; a process with another one counts as missing. Without a token, which
    `check_token` allows on loopback alone, every connection is believed.
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
        """The content of a line of this side; raises `ValueError` where its sender does not know the token."""
        body, _, signature = line.rpartition(b" ")
        if not hmac.compare_digest(signature, self._signature(side, body)):
            raise ValueError("it has another recovery.token, or none")
        return _object(body)


class _Hub:
    """Process 0 hears the others one by one, and keeps their connections until it has heard all."""

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
        """Listens on the own address as soon as that is free: its name may be new, an older listener may be ending."""
        while True:
            try:
                return _opened(self._addresses[0])
            except (OSError, ValueError) as error:
                self._fault = str(error)
                self._wait.rest(TICK_S, self._text())

    def _hear(self, listener: socket.socket) -> None:
        """Accept the next connection, if one comes within `TICK_S`."""
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
        """The number, the seal and the shares of a process that has proven to know the token."""

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
    """Whether the peer still waits, silently and connected."""
    try:
        peer.send(b"\n")
        peer.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False  # it has ended, or speaks out of turn


def _given(addresses: Sequence[str], process: int, own: Sequence[Share], wait: Wait, token: bytes) -> list[Share]:
    """The shares of all, as process 0 sends them to this other process."""
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
    """The next bytes; raises `OSError` where none come until then or the connection ends."""
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
    """The next line, whole until then, at most `most` bytes long; `said` is the part that has come already.

    Raises `OSError` where it does not come, `ValueError` where it does not begin as an object or is too long.
    """
    while b"\n" not in said:
        said += _received(sock, until, look)
        if not said.startswith(b"{") or len(said) > most:
            raise ValueError(_NOT_OURS)
    return said.partition(b"\n")[0]


def _awaited(sock: socket.socket, most: int, look: Callable[[], None], seconds: float = SILENCE_S) -> bytes:
    """The next line that is not empty. Empty lines, no further apart than `seconds`, say that the wait goes on."""
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
