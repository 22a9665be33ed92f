"""The overlap of files in time."""

from __future__ import annotations

import numpy as np
import pytest

from flows.process.spans import Spans
from operators.model import SECOND

T0 = 1_741_000_000


def spans(**files: list[int]) -> Spans:
    found = Spans()
    for name, starts in files.items():
        for start in starts:
            found.add(name, np.array([(T0 + start) * SECOND], np.int64))
        found.add(name, np.empty(0, np.int64))
    return found


@pytest.mark.parametrize("files", [{}, {"a": [0, 10]}, {"b": [10, 20], "a": [0, 10]}, {"a": [0, 5], "b": []}])
def test_files_one_after_the_other_do_not_overlap(files: dict[str, list[int]]) -> None:
    assert spans(**files).overlap() == ""


def test_an_overlap_is_told_with_its_times_whatever_the_order() -> None:
    said = spans(b=[60, 90], a=[70, 0]).overlap()
    assert said == spans(a=[0, 70], b=[90, 60]).overlap()
    assert said.startswith("files overlap in time: a ends 2025-03-03 11:07:50, after b begins 2025-03-03 11:07:40; ")


def test_a_long_file_overlaps_all_that_begin_before_its_end() -> None:
    said = spans(a=[0, 100], b=[10, 20], c=[30, 40], d=[100, 110]).overlap()
    assert "a ends" in said and "after b begins" in said and ", and 1 more begin so;" in said
