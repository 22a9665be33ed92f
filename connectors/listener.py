"""The HTTP listener for Prometheus and for probes: `/metrics`, `/health/live`, `/health/ready`.

Bytewax's own listener binds every interface, so it stays off. This one binds the address of the settings, by default
loopback. It has no authentication and serves numbers alone. It is one thread with one event loop for all clients: a
client costs a descriptor and a few kilobytes until it is answered or closed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from operators.errors import ConfigError

log = logging.getLogger(__name__)

DEADLINE_S: Final = 5.0
"""How long a client may take from its connection to the last byte of its answer, in seconds."""

CONNECTIONS: Final = 128
"""Most clients at a time; the oldest gives way to a new one, since a proper client is gone in milliseconds."""

HEAD_BYTES: Final = 8_192
"""Most bytes of a request. No request that gets an answer has a body."""

_BACKLOG: Final = 32  # one turn of the loop accepts at most so many clients beyond `CONNECTIONS`
_STOP_S: Final = 2.0
_PLAIN: Final = "text/plain; charset=utf-8"

Probe = Callable[[], bool]


class Listener:
    """Serves the registry from a thread of its own until `stop`.

    That thread calls `closed` for each client without an answer: with `crowded` if it gave way to another, `slow` if
    its time was over, `large` if its request was too long. Raises `ConfigError` where the address is in use.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        ready: Probe,
        live: Probe = lambda: True,
        closed: Callable[[str], None] = lambda reason: None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._registry = registry
        self._ready = ready
        self._live = live
        self._closed = closed
        self._deadline_s = deadline_s
        self._clients: dict[asyncio.StreamWriter, None] = {}  # oldest first
        listening = _bound(host, port)
        self.server_port: int = listening.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_failed)
        start = asyncio.start_server(self._serve, sock=listening, limit=HEAD_BYTES, backlog=_BACKLOG)
        self._server = self._loop.run_until_complete(start)
        self._thread = threading.Thread(target=self._loop.run_forever, name="metrics", daemon=True)
        self._thread.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client from its connection to its end."""
        if len(self._clients) >= CONNECTIONS:
            oldest = next(iter(self._clients))
            del self._clients[oldest]
            oldest.transport.abort()
            self._closed("crowded")
        self._clients[writer] = None
        try:
            async with asyncio.timeout(self._deadline_s):
                writer.write(self._answer(await reader.readuntil(b"\r\n\r\n")))
                writer.close()
                await writer.wait_closed()
        except asyncio.LimitOverrunError:
            self._closed("large")
        except TimeoutError:
            self._closed("slow")
        except (asyncio.IncompleteReadError, OSError):
            log.debug("a client of the metrics listener went away before it was answered")
        finally:
            self._clients.pop(writer, None)
            writer.transport.abort()

    def _answer(self, head: bytes) -> bytes:
        """The whole answer to the request with this head."""
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            status, kind, body = HTTPStatus.BAD_REQUEST, _PLAIN, b"a request of HTTP/1 is expected\n"
        elif words[0] not in ("GET", "HEAD"):
            status, kind, body = HTTPStatus.NOT_IMPLEMENTED, _PLAIN, b"there are GET and HEAD\n"
        else:
            status, kind, body = self._page(words[1].split("?", 1)[0])
        lines = [
            f"HTTP/1.0 {status.value} {status.phrase}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if words[0] == "HEAD" else body)

    def _page(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        match path:
            case "/metrics":
                return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._registry)
            case "/health/live":
                return _told(self._live(), "alive", "the flow has not moved for too long")
            case "/health/ready":
                return _told(self._ready(), "ready", "the source has not been polled yet")
            case _:
                return HTTPStatus.NOT_FOUND, _PLAIN, b"there are /metrics, /health/live and /health/ready\n"

    def stop(self) -> None:
        """Stop answering."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_STOP_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_S)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        clients = asyncio.all_tasks() - {asyncio.current_task()}
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


def _bound(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen on {host}:{port} for metrics ({error.strerror}); "
            "set metrics.host and metrics.port to an address of this machine that is free, or metrics.port = 0"
        ) from error
    return listening


def _told(good: bool, yes: str, no: str) -> tuple[HTTPStatus, str, bytes]:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return status, _PLAIN, f"{yes if good else no}\n".encode()


def _failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Contain the failure of a client, or of a missing descriptor, which the loop asks for again."""
    log.debug("the metrics listener: %s", context.get("message"), exc_info=context.get("exception"))
