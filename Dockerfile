# One image for all commands: by default the flow; `docker run IMAGE flows.check` or `flows.simulate ...` runs another.
# The packages are a layer of their own: it is built again only when the lock changes.
# A tag can move. To build on the same base again, name it with its digest: --build-arg BASE=python:3.12-slim-bookworm@sha256:...
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE} AS packages
COPY requirements.lock .
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock

FROM ${BASE}
LABEL org.opencontainers.image.title="llm-sentinel" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 sentinel \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin sentinel \
    && install -d -o 10001 -g 10001 /data /var/cache/llm-sentinel
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY LICENSE ./
COPY operators operators
COPY connectors connectors
COPY flows flows

# Without a settings file of its own (SENTINEL_CONFIG) the container is the embedded run, with its files in /data.
COPY <<"EOF" sentinel.toml
[store.sqlite]
path = "/data/sentinel.db"

[alerts]
jsonl = "/data/alerts.jsonl"

[dead_letters]
jsonl = "/data/dead_letters.jsonl"

[metrics]
port = 9464
EOF

# The root file system may be read-only: files are written to /data (also when SQLite sorts at a resume), and compiled
# loops to the cache. There is hardly any linear algebra, so its library needs no thread for each core of the node.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NUMBA_CACHE_DIR=/var/cache/llm-sentinel \
    OPENBLAS_NUM_THREADS=1 \
    SQLITE_TMPDIR=/data
VOLUME ["/data", "/var/cache/llm-sentinel"]
USER 10001:10001
STOPSIGNAL SIGTERM

# The listener is on the container's loopback, and so is this check.
HEALTHCHECK --interval=15s --timeout=3s --start-period=120s --retries=4 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9464/health/live', timeout=2)"]

ENTRYPOINT ["python", "-m"]
CMD ["bytewax.run", "flows.main", "-r", "/data/recovery", "-s", "10", "-b", "0"]
