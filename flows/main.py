"""The main flow: `python -m bytewax.run flows.main` calls `flow()`.

Importing this module does nothing. `flow()` reads the settings, claims the recovery folder, connects to the source, and
returns the dataflow. The process ends with one message and exit code 78 if the set-up is wrong, or exit code 1 if a
neighbour stays away.
"""

from __future__ import annotations

import flows.process.early  # noqa: F401 - must come before the slow imports

# isort: split
import atexit
import logging
import os
import sys
from pathlib import Path
from typing import Final

from bytewax.dataflow import Dataflow

from connectors.files.source import FilesFactory
from connectors.kafka.source import KafkaSource
from connectors.listener import Listener
from connectors.tracing import Traces
from flows import __version__, wiring
from flows.process import start
from flows.process.ending import say_why
from flows.process.logs import Who, debug_on_signal, set_up_logging, tell
from flows.process.panics import keep_back
from flows.process.progress import Progress
from flows.process.run import Run, spare_the_collector, stop_on_signals, wall_clock
from flows.process.spans import Spans
from flows.recovery import store
from flows.recovery.gather import check_token
from flows.recovery.joining import join
from flows.settings.model import CONFIG_EXIT_CODE, load
from flows.settings.schema import secrets_of
from operators.errors import ConfigError, SentinelError

WATCH_S: Final = 5.0
"""How often the flow asks the brokers whether a topic of the source was made anew or has grown, in seconds."""


def flow() -> Dataflow:
    """The dataflow that `bytewax.run` runs.

    If the flow cannot start, the process ends with one message: code 78 means that the set-up is wrong, code 1 that a
    neighbour was away for longer than the start waits for it.
    """
    panics = keep_back()
    try:
        settings = load(os.environ, Path.cwd()).settings
        where = store.place(sys.argv[1:], os.environ)
        who = Who(where.process)
        set_up_logging(settings.log.level, settings.log.format, who, secrets_of(settings))
        start.check_folders(settings)
        token = None if settings.recovery.token is None else settings.recovery.token.get_secret_value()
        joins = where.folder is not None and settings.recovery.layout == "own" and where.processes > 1
        if joins:
            check_token(where.addresses, token)
        factory = wiring.reader(settings)
        if where.folder is not None:
            store.refuse_foreign(where.folder)
            start.check_room(where.folder)
        telemetry = start.measured(settings)
        run = Run(telemetry, Progress() if settings.log.format == "text" else None)
        if settings.traces.endpoint is not None:
            run.traces = Traces(settings.traces, __version__, who.run, who.process)
        run.held = start.claim(settings, where, factory)
        to = wiring.writers(settings, None if run.held is None else run.held.topics)
        dataflow = wiring.build(settings, run, factory, wall_clock, to)
        start.start_heartbeats(settings, run, where)
        if isinstance(factory, FilesFactory):
            run.spans = Spans()
        if isinstance(factory, KafkaSource):
            run.watch = factory.watch(WATCH_S, run.telemetry.unread)
        if settings.metrics.port:
            run.listener = Listener(
                settings.metrics.host,
                settings.metrics.port,
                telemetry.registry,
                run.polled_once.is_set,
                lambda: run.is_live(settings),
                telemetry.closed,
            )
        if joins and where.folder is not None:
            join(where, where.folder, run.connected, token)
    except SentinelError as error:
        tell(logging.CRITICAL, f"llm-sentinel cannot start: {error}")
        raise SystemExit(CONFIG_EXIT_CODE if isinstance(error, ConfigError) else 1) from None
    spare_the_collector()
    say_why(where.folder, panics)
    stop_on_signals(run.stop)
    debug_on_signal()
    atexit.register(run.finish, settings.metrics.balance_file)  # also keeps the lock and the listener alive
    return dataflow
