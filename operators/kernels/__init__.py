"""Compiled loops. Each kernel is plain Python on arrays, so it also runs uncompiled (NUMBA_DISABLE_JIT=1).

Kernels take their arrays as named tuples. Numba unpacks them in five to ten microseconds a call. So the settings become
a tuple once, the arrays of a pane become one for all detectors, and kernels return plain tuples. A kernel that makes
arrays binds the arrays of its tuples to local names before its loops, or runs the loops in an `inner` function.
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
    """As `compiled`, for a loop that makes no arrays: it counts no references to its arguments.

    In a loop over the arrays of a named tuple, counting references would cost more than all other work.
    """
    return cast(Callable[P, R], numba.njit(cache=True, **_UNCOUNTED)(function))


def inner(function: Callable[P, R]) -> Callable[P, R]:
    """Compile the function into each kernel that calls it, and so keep it on disk with them.

    It may take functions, and makes no arrays. A kernel on disk is compiled anew when its own file changes, but not
    when the file of an inner function does.
    """
    return cast(Callable[P, R], numba.njit(forceinline=True, **_UNCOUNTED)(function))
