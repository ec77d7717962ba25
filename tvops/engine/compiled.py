"""The one decorator for compiled code: ``@kernel``.

A kernel takes arrays and scalars only, releases the GIL, and is cached on disk, so that only the first
start after an installation compiles.
"""

import functools
import inspect
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import event

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile ``function`` with numba: no Python objects, no GIL, cached on disk.

    The cache is good while no source file in the function's folder changes: numba by itself looks at the
    function's own file only, and would go on using what it compiled from others.
    """
    dispatcher: Any = numba.njit(cache=True, nogil=True)(function)
    index = dispatcher._cache._cache_file
    index._source_stamp = (index._source_stamp, _digest(Path(inspect.getfile(function)).parent))
    return cast(F, dispatcher)


class _Counter(event.Listener):
    """Counts what numba compiles; what it loads from the cache does not count."""

    def __init__(self) -> None:
        self.compilations = 0

    def on_start(self, event: Any) -> None:
        self.compilations += 1

    def on_end(self, event: Any) -> None:
        pass


_counter = _Counter()
event.register("numba:compile", _counter)  # type: ignore[no-untyped-call]


def compilations() -> int:
    """Tell how many kernels this process has compiled so far."""
    return _counter.compilations


@functools.cache
def _digest(folder: Path) -> int:
    digest = zlib.crc32((Path(__file__).parent / "records.py").read_bytes())
    for source in sorted(folder.glob("*.py")):
        digest = zlib.crc32(source.read_bytes(), digest)
    return digest
