"""Dead letters as messages, with one encoding for all sinks."""

from __future__ import annotations

from typing import Final

import orjson

from connectors.base import Message
from operators.model import DeadLetter
from operators.text import encodable

SCHEMA: Final = "llm-sentinel.dead-letter/1"


def encode_dead_letter(letter: DeadLetter) -> bytes:
    """One line of JSON: schema, id, topic (or file), partition, offset, reason, detail, payload."""
    return orjson.dumps(
        {
            "schema": SCHEMA,
            "id": letter.id,
            "topic": letter.origin,
            "partition": letter.partition,
            "offset": letter.offset,
            "reason": letter.reason,
            "detail": encodable(letter.detail),
            "payload": encodable(letter.payload),
        }
    )


def dead_letter_record(letter: DeadLetter) -> Message:
    """The dead letter as a message, known by its id; its key is the source partition."""
    source = f"{letter.origin}/{letter.partition}"
    headers = {
        "ce_specversion": "1.0",
        "ce_id": letter.id,
        "ce_type": "llm-sentinel.dead-letter",
        "ce_source": source,
        "content-type": "application/json",
        "reason": letter.reason,
    }
    return Message(letter.id, source, headers, encode_dead_letter(letter))
