"""The smallest parts of the kernels: bit search, and writing an event."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.extending import intrinsic

from tvops.engine.matching.layout import EVENT_WORDS, Words

F = TypeVar("F", bound=Callable[..., Any])

u = cast(Callable[[int], int], np.uint64)
"""Makes an index unsigned, which spares the check for negative ones."""

wide = cast(Callable[[int], int], np.int64)
"""Makes an int32 an int64."""


_njit: Any = numba.njit  # its stubs lack the two options


def part(function: F) -> F:
    """Compile ``function`` as a part of the kernels that call it: no entry of its own, no cache of its own."""
    return cast(F, _njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function))


def _lowest_bit(_: Any, __: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], context.get_constant(numba.boolean, 1))

    return numba.int64(numba.int64), generate


lowest_bit = cast(Callable[[int], int], intrinsic(_lowest_bit))
"""Number of the lowest bit that is set in an int64 that is not 0."""


@part
def emit(
    events: Words, row: int, seq: int, time: int, order_id: int, ref: int,
    price: int, quantity: int, leaves: int, who: int, reason: int,
) -> None:  # fmt: skip
    """Write EVENT ``row``; ``who`` is account, instrument, kind and side as they lie in the record."""
    at = u(row * EVENT_WORDS)
    events[at] = seq
    events[at + u(1)] = time
    events[at + u(2)] = order_id
    events[at + u(3)] = ref
    events[at + u(4)] = price
    events[at + u(5)] = quantity
    events[at + u(6)] = leaves
    events[at + u(7)] = who
    events[at + u(8)] = reason


@part
def who_word(account: int, instrument: int, kind: int, side: int) -> int:
    """Pack the four fields as they lie in COMMAND and EVENT."""
    return account | (instrument << 32) | (kind << 48) | (side << 56)
