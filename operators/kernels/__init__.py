"""Compiled loops. Each kernel is plain Python on arrays, so it also runs uncompiled (NUMBA_DISABLE_JIT=1).

Kernels take their arrays as named tuples, which numba compiles to their fields. A call costs about half a microsecond
a field, so a tuple holds only arrays that a kernel and its neighbours read, and tuples of settings are made once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile the loop at its first call and keep the result on disk, beside the module or in NUMBA_CACHE_DIR."""
    return cast(Callable[P, R], numba.njit(cache=True, nogil=True)(function))


def inner(function: Callable[P, R]) -> Callable[P, R]:
    """Compile the function into each kernel that calls it, and so keep it on disk with them; it may take functions.

    A kernel on disk is compiled anew when its own file changes, but not when the file of an inner function does.
    """
    return cast(Callable[P, R], numba.njit(nogil=True, forceinline=True)(function))
