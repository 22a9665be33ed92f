"""Compiled loops. Each kernel is plain Python on arrays, so it also runs uncompiled (NUMBA_DISABLE_JIT=1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile the loop at its first call and keep the result on disk, beside the module or in NUMBA_CACHE_DIR."""
    return cast(Callable[P, R], numba.njit(cache=True, nogil=True)(function))
