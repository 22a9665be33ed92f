"""A new format is its file, its registry line and its test with its records; these alone add one here.

It is native JSON in Base64.
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


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with one more format."""
    tree = linked(tmp_path_factory.mktemp("tree"), "operators/decode", "tests/operators/decode", "tests/records.py")
    (tree / "operators" / "decode" / "base64.py").write_text(DECODER)
    registry = tree / "operators" / "decode" / "registry.py"
    add_before(registry, "from operators.decode.native import", IMPORT)
    add_before(registry, '    "native": ', LINE)
    with (tree / "tests" / "records.py").open("a") as records:
        records.write(RECORDS)
    (tree / "tests" / "operators" / "decode" / "test_base64.py").write_text(TEST)
    return tree


def test_the_laws_and_its_own_test_meet_it(tree: Path) -> None:
    tests = ("tests/contracts/test_decoders.py", "tests/operators/decode/test_base64.py")
    said = run(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "base64 or format", *tests)
    assert "12 passed" in said
