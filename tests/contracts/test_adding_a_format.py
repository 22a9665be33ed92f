"""A new format is its file, its registry line and its test with its records; these alone add two here.

One is native JSON in Base64, with a decoder of its own. The other is translated: its file says what its fields are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.contracts.trees import add_before, linked, run

DECODER: Final = '''
"""Native JSON in Base64."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from typing import Literal

from operators.decode.config import DecodeConfig
from operators.decode.base import Decoded
from operators.decode.native import NativeDecoder


class Base64Decoder:
    """The decoder of native JSON in Base64."""

    def __init__(self) -> None:
        self._native = NativeDecoder()

    def decode(
        self,
        values: Sequence[bytes],
        limits: DecodeConfig,
        timestamp_is: Literal["start", "end"] = "start",
    ) -> Decoded:
        """One event or one fault for each of the values."""
        return self._native.decode([_plain(value) for value in values], limits, timestamp_is)


def _plain(value: bytes) -> bytes:
    """The JSON, or bytes that are none if the value is not Base64."""
    try:
        return b64decode(value, validate=True)
    except ValueError:
        return b"not Base64"
'''
IMPORT: Final = "from operators.decode.base64 import Base64Decoder\n"
LINE: Final = '    "base64": Base64Decoder(),\n'
RECORDS: Final = """
from base64 import b64encode

RECORDS["base64"] = st.one_of(NATIVE.map(b64encode), NATIVE)
SECRETS["base64"] = lambda secret: [b64encode(value) for value in _json_with(secret)]
PLAIN["base64"] = lambda said: b64encode(_native(said))
CARRIED["base64"] = lambda said: said
FAULTY["base64"] = {reason: [b64encode(value) for value in values] for reason, values in FAULTY["native"].items()}
"""
TEST: Final = """
from base64 import b64encode

from operators.decode.config import DecodeConfig
from operators.decode.registry import decoder


def test_it_reads_what_is_inside() -> None:
    value = b64encode(b'{"timestamp": 1740960000, "service": "chat", "event_id": "e1"}')
    decoded = decoder("base64").decode([value, b"?"], DecodeConfig())
    assert decoded.events.event_id == ["e1"]
    assert [(fault.record, fault.reason) for fault in decoded.faults] == [(1, "not_json")]
"""


TRANSLATED: Final = '''
"""Calls that stand under `tagged`."""

from __future__ import annotations

from typing import Final

from operators.decode.base import Reading, Unreadable
from operators.decode.config import DecodeConfig
from operators.decode.fields import Gathered, at_most, once, parsed, source, text
from operators.model import Reason

_FIELDS: Final = {
    "timestamp": source("when"), "service": source("who"), "model": source("model"), "event_id": source("id"),
    "latency_ms": source("took_ms"), "prompt_tokens": source("tokens"),
}


class TaggedFormat:
    """The format of records with an array `tagged`."""

    @staticmethod
    def looks_like(record: object) -> bool:
        """Whether a parsed record has names that only this format has."""
        return isinstance(record, dict) and isinstance(record.get("tagged"), list)

    def read(self, value: bytes, limits: DecodeConfig) -> Reading:
        """The calls of one record; raises `Unreadable`."""
        record = parsed(value)
        if not isinstance(record, dict) or not self.looks_like(record):
            raise Unreadable(Reason.MISSING_FIELD, "tagged: is required, and is no array")
        at_most(len(record["tagged"]))
        return once(_call(one) or "no_call" for one in record["tagged"])


def _call(one: object):
    if one == {"note": 1}:
        return None
    call = Gathered()
    for name, whence in _FIELDS.items():
        call.take(name, one, whence)
    told = text(call.fields.get("event_id"))
    return call.call(*([f"call:{told}"] if told else []))
'''
TRANSLATED_RECORDS: Final = """

def _tagged(said):
    said = CARRIED["tagged"](said)
    labels, values = said.labels, said.in_units()
    return {
        "when": _time(said.at), "who": labels["service"], "model": labels.get("model"), "id": said.event_id,
        "took_ms": values.get("latency_ms"), "tokens": said.steps.get("prompt_tokens"),
    }


CARRIED["tagged"] = lambda said: _limited(said, {"model": _as_sent}, ("latency", "prompt_tokens"))._replace(trace_id="")
TREES["tagged"] = lambda said: {"tagged": [_tagged(one) for one in said]}
TOGETHER["tagged"] = lambda said: json.dumps(TREES["tagged"](said)).encode()
AMID["tagged"] = lambda said: json.dumps(
    {"tagged": [one for told in said for one in (_tagged(told), {"note": 1}, _tagged(told))]}
).encode()
PLAIN["tagged"] = lambda said: TOGETHER["tagged"]([said])
FAULTY["tagged"] = _faulty("tagged") | {
    Reason.MISSING_FIELD: [b"[1]", b'{"tagged":[{}]}'],
    Reason.TOO_MANY_CALLS: [b'{"tagged":[' + b"{}," * 10_000 + b"{}]}"],
}
"""
TRANSLATED_TEST: Final = """
from operators.decode.config import DecodeConfig
from operators.decode.registry import decoder


def test_it_reads_what_is_inside() -> None:
    value = b'{"tagged": [{"when": 1740960000, "who": "chat", "id": "e1"}, {"who": "chat"}]}'
    for name in ("tagged", "auto"):
        decoded = decoder(name).decode([value], DecodeConfig())
        assert decoded.events.event_id == ["e1"]
        assert [(fault.call, fault.reason) for fault in decoded.faults] == [(1, "missing_field")]
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with two more formats."""
    copied = ("operators/decode", "tests/operators/decode", "tests/records.py", "tests/translated.py")
    tree = linked(tmp_path_factory.mktemp("tree"), *copied)
    decode, tests = tree / "operators" / "decode", tree / "tests"
    (decode / "base64.py").write_text(DECODER)
    add_before(decode / "registry.py", "from operators.decode.earlier import", IMPORT)
    add_before(decode / "registry.py", '    "native": ', LINE)
    (decode / "tagged.py").write_text(TRANSLATED)
    add_before(
        decode / "registry.py",
        "from operators.decode.translate import",
        "from operators.decode.tagged import TaggedFormat\n",
    )
    add_before(decode / "registry.py", '    "earlier": EarlierFormat()', '    "tagged": TaggedFormat(),\n')
    for name, added in (("records.py", RECORDS), ("translated.py", TRANSLATED_RECORDS)):
        with (tests / name).open("a") as records:
            records.write(added)
    (tests / "operators" / "decode" / "test_base64.py").write_text(TEST)
    (tests / "operators" / "decode" / "test_tagged.py").write_text(TRANSLATED_TEST)
    return tree


@pytest.mark.parametrize(("name", "laws"), [("base64", 7), ("tagged", 10)])
def test_the_laws_and_its_own_test_meet_it(tree: Path, name: str, laws: int) -> None:
    tests = ("tests/contracts/test_decoders.py", f"tests/operators/decode/test_{name}.py")
    asked = f"(law_holds and {name}) or every_format or (nothing_gives and {name}) or what_is_inside"
    said = run(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", asked, *tests)
    assert f"{laws + 3} passed" in said
