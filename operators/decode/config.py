"""The settings of decoding: limits, conventions of one's own, the memory for duplicates, privacy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, model_validator

from operators.model import TextField
from operators.section import PlainText, Section

Rule = Literal["drop", "hash"]


class PrivacyConfig(Section):
    """Text of events that is dropped or hashed as soon as a record is read."""

    hash_key: SecretStr | None = Field(
        None,
        min_length=16,
        description="The key of all hashes; without it the fields `user` and `key` are dropped. Never shown.",
    )
    rules: dict[TextField, Rule] = Field(
        {}, description='"drop" or "hash" by text field of events; `user` and `key` are hashed without a rule too.'
    )

    @model_validator(mode="after")
    def _possible(self) -> PrivacyConfig:
        if self.rules.get("service") == "drop":
            raise ValueError('rules.service must not be "drop", since every event needs a service: use "hash"')
        if self.hash_key is None and (hashes := [name for name, rule in self.rules.items() if rule == "hash"]):
            raise ValueError(f'rules.{hashes[0]} = "hash" needs hash_key, a secret text of 16 characters or more')
        return self


class LimitsConfig(Section):
    """Limits of a record, and the memory for duplicates."""

    max_record_bytes: int = Field(1_000_000, ge=256, description="Larger records are dead letters.")
    max_string: int = Field(1_024, ge=16, description="Longest accepted text field, in characters.")
    max_attributes: int = Field(128, ge=0, description="Most accepted entries of `attributes`.")
    payload_bytes: int = Field(
        2_048, ge=0, description="Most bytes of a record that a dead letter shows, content cut out."
    )
    dedupe_s: float = Field(
        900,
        ge=0,
        le=86_400,
        description="Count a call once that is told again within this event time: by its event_id, span, response id "
        "or call id; 0 is off.",
    )
    attributes: dict[PlainText, tuple[PlainText, ...]] = Field(
        {},
        description="Further attributes of spans by the field that they tell, asked before those that are known: "
        'prompt_tokens = ["acme.tokens.in", "acme.usage#input"]; # leads into JSON text. Times are milliseconds.',
    )
    dedupe_max_ids: int = Field(
        1_000_000, ge=1, description="Most ids remembered in a partition, at most 64 bytes each; a call has up to four."
    )


class DecodeConfig(LimitsConfig):
    """All settings of a decoder: [decode], and [privacy] beside it."""

    privacy: PrivacyConfig = PrivacyConfig()
