"""Compiled loops that turn verdicts on the judged scale into expected bands in units."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from operators.kernels import compiled, inner
from operators.kernels.detect import EXPECTED, LOWER, SPAN, UPPER, Floats
from operators.model import Bools, Ints


@inner
def six_digits(value: float) -> float:
    """The value to six digits."""
    if value == 0.0:
        return 0.0
    power = 5.0 - math.floor(math.log10(abs(value)))
    if power >= 0.0:
        unit: float = 10.0 ** min(power, 300.0)
        return float(np.rint(value * unit)) / unit
    unit = 10.0**-power
    return float(np.rint(value / unit)) * unit


class CellUnits(NamedTuple):
    """The units of each cell [C]."""

    in_logs: Bools
    offset: Floats  # added to a value before its logarithm is taken
    factor: Floats  # units in one of the judged scale
    least: Floats  # least possible value, in units
    most: Floats  # largest possible value, in units


@compiled
def bands_in_units(verdicts: Floats, slots: Ints, reference: Floats, units: CellUnits) -> Floats:
    """The bands of these slots: expected value, lower and upper end [R, C, 3]; NaN where nothing was judged.

    `verdicts` [used, C, FIELDS] begin with the K metrics; `reference` [slots, K] is the value from which a metric's
    deviations count.
    """
    in_logs, offset, factor, least, most = units
    cells, metrics = verdicts.shape[1], reference.shape[1]
    out = np.full((len(slots), cells, 3), np.nan)
    for r in range(len(slots)):
        s = slots[r]
        for c in range(cells):
            if verdicts[s, c, SPAN] == 0.0:
                continue
            base = reference[s, c] if c < metrics else 0.0
            for i, field in enumerate((EXPECTED, LOWER, UPPER)):
                value = verdicts[s, c, field] + base
                if in_logs[c]:
                    value = math.exp(min(value, 700.0)) - offset[c]
                out[r, c, i] = six_digits(min(max(value * factor[c], least[c]), most[c]))
    return out
