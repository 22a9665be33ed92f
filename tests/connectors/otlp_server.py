"""A small collector that takes traces by OTLP over HTTP and keeps them."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    """The status that the collector answers, and the requests that it accepted; it does not answer if `held` is set."""

    port: int = 0
    status: int = 200
    held: threading.Event = field(default_factory=threading.Event)
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def spans(self) -> list[Span]:
        return [s for r in self.requests for rs in r.resource_spans for ss in rs.scope_spans for s in ss.spans]

    def resource(self) -> dict[str, object]:
        (resource, *_) = (rs.resource for r in self.requests for rs in r.resource_spans)
        return plain(resource.attributes)


def plain(attributes: object) -> dict[str, object]:
    """Attributes as a dict."""
    found: dict[str, object] = {}
    for pair in attributes:  # type: ignore[attr-defined]
        assert isinstance(pair, KeyValue)
        which = pair.value.WhichOneof("value")
        assert which is not None
        found[pair.key] = getattr(pair.value, which)
    return found


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector on loopback, until the context ends."""
    kept = Collector()
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            while kept.held.is_set() and not over.wait(0.02):
                pass
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if kept.status == 200:
                kept.headers.append({k.lower(): v for k, v in self.headers.items()})
                kept.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(kept.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kept.port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield kept
        finally:
            over.set()
            server.shutdown()
            thread.join()
