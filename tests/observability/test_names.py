"""Every metric that a rule, a dashboard or a document names is emitted, and every emitted metric is documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from operators.observe.instruments import INSTRUMENTS, PROCESS
from tests.conftest import ROOT
from tests.test_architecture import tracked

EMITTED = {*(name for i in INSTRUMENTS for name in (i.name, *i.samples)), *PROCESS}
NAME = re.compile(r"(?<![\w:.-])(?:sentinel|process)_[a-z0-9_]*[a-z0-9](?![\w(=:/.-])")
FOLDERS = ("docs", "observability", "k8s")

places = pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=str(p.relative_to(ROOT)))
        for p in tracked()
        if p.relative_to(ROOT).parts[0] in FOLDERS or p.suffix == ".md"
    ],
)


@places
def test_what_is_named_is_emitted(path: Path) -> None:
    named = set(NAME.findall(path.read_text()))
    assert named <= EMITTED, sorted(named - EMITTED)


def test_what_is_emitted_is_documented() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    named = set(NAME.findall(text))
    assert {i.exposed for i in INSTRUMENTS} | set(PROCESS) <= named
