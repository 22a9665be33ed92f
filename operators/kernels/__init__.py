"""Compiled loops. Each kernel is plain Python on arrays, so it also runs uncompiled (NUMBA_DISABLE_JIT=1).

Kernels take their arrays as named tuples. A call costs about a microsecond for each tuple, so settings are made into
one once, a pane's arrays once for all detectors, and kernels give plain tuples back. Where a kernel makes arrays, its
loops take those of a tuple from names outside of them, or run in an `inner` function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")

_UNCOUNTED: Final[dict[str, Any]] = {"nogil": True, "_nrt": False}  # no references counted, no arrays made


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile the loop at its first call and keep the result on disk, beside the module or in NUMBA_CACHE_DIR."""
    return cast(Callable[P, R], numba.njit(cache=True, nogil=True)(function))


def in_place(function: Callable[P, R]) -> Callable[P, R]:
    """As `compiled`, for a loop that makes no arrays: it counts no references to those that it is given.

    In a loop over the arrays of a named tuple, counting would cost more than the rest of it.
    """
    return cast(Callable[P, R], numba.njit(cache=True, **_UNCOUNTED)(function))


def inner(function: Callable[P, R]) -> Callable[P, R]:
    """Compile what kernels call as a part of each of them, with which it is kept on disk.

    It may take functions, and makes no arrays. A kernel that is on disk is compiled anew when its own file changes, not
    when that of an inner function does.
    """
    return cast(Callable[P, R], numba.njit(forceinline=True, **_UNCOUNTED)(function))
