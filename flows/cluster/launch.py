"""The arguments and the environment of each process of a cluster."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from flows.recovery.store import place
from flows.run import variable
from flows.settings.model import Settings
from operators.errors import ConfigError

SNAPSHOT_S: Final = "10"


def arguments_of(rest: Sequence[str], environ: Mapping[str, str], workers: int) -> tuple[list[str], list[str] | None]:
    """(arguments of each `bytewax.run`, given addresses). Raises `ConfigError` where they do not make a cluster."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-i", "--process-id")
    parser.add_argument("-a", "--addresses")
    parser.add_argument("-s", "--snapshot-interval", default=environ.get("BYTEWAX_SNAPSHOT_INTERVAL", SNAPSHOT_S))
    parser.add_argument("-b", "--backup-interval", default=environ.get("BYTEWAX_RECOVERY_BACKUP_INTERVAL", "0"))
    known, others = parser.parse_known_args(list(rest))
    if known.process_id is not None:
        raise ConfigError("-i is not for a cluster, which numbers its processes itself: leave it out")
    if place(others, environ).folder is None:
        raise ConfigError("a cluster comes back from its snapshots: give it a recovery folder with -r")
    addresses = known.addresses.split(";") if known.addresses else None
    if addresses is not None and len(addresses) != workers:
        raise ConfigError(f"-a names {len(addresses)} addresses for {workers} processes: give one for each, or none")
    return [*others, "-s", known.snapshot_interval, "-b", known.backup_interval], addresses


def environments(settings: Settings, environ: Mapping[str, str], workers: int) -> list[dict[str, str]]:
    """The environment of each process, with a metrics port and a balance file of its own if these are set.

    All have the same token; if none is set, a random one.
    """
    found = []
    token = {} if settings.recovery.token else {variable("recovery.token"): secrets.token_hex(32)}
    for number in range(workers):
        own = dict(token)
        if settings.metrics.port:
            own[variable("metrics.port")] = str(settings.metrics.port + number)
        if (path := settings.metrics.balance_file) is not None and workers > 1:
            own[variable("metrics.balance_file")] = str(path.with_stem(f"{path.stem}-{number}"))
        found.append({**environ, **own})
    return found
