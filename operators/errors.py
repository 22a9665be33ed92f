"""The errors of LLM-Sentinel.

    SentinelError
    ├── ConfigError      the set-up is wrong: the start is refused (exit code 78)
    ├── DataError        one item is wrong: it becomes a dead letter, the flow goes on
    ├── RetryableError   a neighbour failed and may recover: tried again with back-off
    └── FatalError       the process cannot go on: it ends, and its supervisor brings it back

These types alone decide about retries, never the text of a message.
"""


class SentinelError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(SentinelError):
    """The set-up is wrong; the message names the fault, its origin and the remedy."""


class DataError(SentinelError):
    """One item cannot be used; `reason` is a short code fit for a metric label."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class RetryableError(SentinelError):
    """A neighbour failed in a way that may pass: trying again is right."""


class FatalError(SentinelError):
    """Nothing this process does can help; going on would lose or repeat data."""
