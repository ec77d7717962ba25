"""The one decorator for compiled code: ``@kernel``.

A kernel takes arrays and scalars only, releases the GIL, and is cached on disk, so that only the first
start after an installation compiles.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile ``function`` with numba: no Python objects, no GIL, cached on disk."""
    return cast(F, numba.njit(cache=True, nogil=True)(function))
