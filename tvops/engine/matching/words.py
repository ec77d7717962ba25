"""The smallest parts of the kernels: bit search, and writing an event."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tvops.engine.matching.layout import EVENT_WORDS, Array, Halves, Words

F = TypeVar("F", bound=Callable[..., Any])

u = cast(Callable[[int], int], np.uint64)
"""Makes an index unsigned, which spares the check for negative ones."""

wide = cast(Callable[[int], int], np.int64)
"""Makes an int32 an int64."""


_njit: Any = numba.njit  # its stubs lack two of the options
_insert_function: Any = cgutils.get_or_insert_function
_PART = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def part(function: F) -> F:
    """Compile ``function`` as a part of the kernels that call it: no entry of its own, no cache of its own."""
    return cast(F, _njit(**_PART, forceinline=False)(function))


def hot(function: F) -> F:
    """Compile ``function`` as a `part` that becomes one with each caller: for the path that most commands take."""
    return cast(F, _njit(**_PART, forceinline=True)(function))


def _stay_apart(_: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate


stay_apart = cast(Callable[[], None], intrinsic(_stay_apart))
"""Keeps the function that calls it out of the code of its callers: for what is rare."""


def _prefetch(_: Any, pointer: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        function = _insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        place = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), byte)
        builder.call(function, [place, flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(pointer, types.int64), generate


prefetch = cast(Callable[[Words, int], None], intrinsic(_prefetch))
"""Ask for the memory at an index, any index, before it is needed."""


def _lowest_bit(_: Any, __: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], context.get_constant(numba.boolean, 1))

    return numba.int64(numba.int64), generate


lowest_bit = cast(Callable[[int], int], intrinsic(_lowest_bit))
"""Number of the lowest bit that is set in an int64 that is not 0."""


def _pointer_to(element: Any) -> Any:
    pointer: Any = cast(Any, types.CPointer)(element)

    def pointer_to(_: Any, array: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, value=arguments[0]).data
            return builder.bitcast(data, context.get_value_type(pointer))

        return pointer(array), generate

    return intrinsic(pointer_to)


words_of = cast(Callable[[Array], Words], _pointer_to(types.int64))
"""The memory of an array as bare int64 words: passed on in one register, where an array takes seven."""

halves_of = cast(Callable[[Array], Halves], _pointer_to(types.int32))
"""The same memory as int32."""


@hot
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


@hot
def who_word(account: int, instrument: int, kind: int, side: int) -> int:
    """Pack the four fields as they lie in COMMAND and EVENT."""
    return account | (instrument << 32) | (kind << 48) | (side << 56)
