"""The HTTP listener for Prometheus and for probes: `/metrics`, `/health/live`, `/health/ready`.

Bytewax's own listener binds every interface, so it stays off; this one binds what the settings say, loopback by
default. It has no authentication and serves numbers alone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from operators.errors import ConfigError

log = logging.getLogger(__name__)

Probe = Callable[[], bool]


class _Handler(BaseHTTPRequestHandler):
    timeout = 5  # a client that says nothing does not hold its thread

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Listener)
        match self.path.split("?", 1)[0]:
            case "/metrics":
                self._answer(200, generate_latest(server.registry), CONTENT_TYPE_LATEST)
            case "/health/live":
                live = server.live()
                self._answer(200 if live else 503, b"alive\n" if live else b"the flow has not moved for too long\n")
            case "/health/ready":
                ready = server.ready()
                self._answer(200 if ready else 503, b"ready\n" if ready else b"the source has not been polled yet\n")
            case _:
                self._answer(404, b"there are /metrics, /health/live and /health/ready\n")

    def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the name that the standard library looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Scrapes are not worth a line each."""


class Listener(ThreadingHTTPServer):
    """Serves the registry from a thread of its own until `stop`."""

    daemon_threads = True

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, ready: Probe, live: Probe = lambda: True
    ) -> None:
        self.registry = registry
        self.ready = ready
        self.live = live
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port} for metrics ({error.strerror}); "
                "set metrics.host and metrics.port to an address of this machine that is free, or metrics.port = 0"
            ) from error
        threading.Thread(target=self.serve_forever, name="metrics", daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is no fault of ours."""
        log.debug("a request to the metrics listener failed", exc_info=True)

    def stop(self) -> None:
        """Answer nothing more."""
        self.shutdown()
        self.server_close()
