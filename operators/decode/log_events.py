"""The log records by which agents tell their calls: names of their events, and attributes that stand beside the table.

An agent puts its own name first (`claude_code.api_request`, `gemini_cli.api_response`): what follows the last dot
decides. Sources: the documents of Claude Code, and the telemetry of Gemini CLI, Qwen Code and Codex CLI.
"""

from __future__ import annotations

from typing import Final, Literal

from operators.decode.conventions import Row, rows

Event = Literal["answer", "failure", "either"]

EVENTS: Final[dict[str, Event]] = {
    "api_response": "answer",
    "api_error": "failure",
    "api_request": "either",
    "sse_event": "either",
}
"""What an event tells: an answer, a failure, or either of them: if it tells tokens or an error, and else no call, since
some are written before the call."""

ENDS: Final[dict[str, str]] = {"sse_event": "response.completed"}
"""The `event.kind` of the last one of many events of a call. How long it took is not how long the call took."""

EVENT_ROWS: Final[tuple[Row, ...]] = (
    *rows("latency_ms", "duration_ms", unit="ms"),
    *rows("prompt_tokens", "input_token_count"),
    *rows("completion_tokens", "output_token_count"),
    *rows("cached_tokens", "cached_content_token_count", "cached_token_count"),
    *rows("cache_write_tokens", "cache_write_token_count"),
    *rows("reasoning_tokens", "thoughts_token_count", "reasoning_token_count"),
    *rows("total_tokens", "total_token_count"),
    *rows("cost_usd", "cost_usd", unit="usd"),
    *rows("finish_reason", "finish_reasons"),
    *rows("error_type", "status_code"),
    *rows("message", "error"),
    *rows("session_id", "conversation.id"),
    *rows("request_id", "request_id"),
)
"""Rows that are asked after those of the table. Spans of the same agents have some of them too."""

EVENT_MORE: Final = ("endpoint", "event.kind", "event.sequence")
"""Attributes that the rules for events ask for."""
