"""System calls that Python has no function for. Each raises OSError with the kernel's reason."""

from __future__ import annotations

import ctypes
import errno
import os
import platform

_SET_TIMERSLACK, _GET_TIMERSLACK = 29, 30
_SET_THP_DISABLE, _GET_THP_DISABLE = 41, 42
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_MPOL_DEFAULT, _MPOL_PREFERRED = 0, 1
_MEMPOLICY = {"x86_64": (238, 239), "aarch64": (237, 236), "riscv64": (237, 236)}  # set, get
_MOST_NODES = 1024
_BITS = 8 * ctypes.sizeof(ctypes.c_ulong)

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _prctl(option: int, value: int = 0) -> int:
    arguments = (ctypes.c_ulong(number) for number in (value, 0, 0, 0))
    return _checked(int(_libc.prctl(option, *arguments)))


def timer_slack() -> int:
    """Give by how many ns the kernel may delay timers of the calling thread (prctl(2))."""
    return _prctl(_GET_TIMERSLACK)


def set_timer_slack(nanoseconds: int) -> None:
    """Set it; threads and processes that the calling thread starts from now on inherit it."""
    _prctl(_SET_TIMERSLACK, nanoseconds)


def thp_disabled() -> int:
    """Tell (1 or 0) whether this process does without transparent huge pages."""
    return _prctl(_GET_THP_DISABLE)


def set_thp_disabled(disabled: int) -> None:
    """Set it; children inherit it, also over exec."""
    _prctl(_SET_THP_DISABLE, disabled)


def lock_memory(future: bool) -> None:
    """Keep the pages of this process in memory (mlockall(2)).

    Args:
        future: pages that it gets later too. They are locked when they are first touched, so that address space
            which is only reserved (the stacks of threads, the heaps of allocators) takes no memory.
    """
    flags = _MCL_CURRENT | (_MCL_FUTURE if future else 0) | _MCL_ONFAULT
    _checked(int(_libc.mlockall(flags)))


def unlock_memory() -> None:
    """Let pages be swapped again."""
    _checked(int(_libc.munlockall()))


def preferred_node() -> int | None:
    """Give the NUMA node that memory of the calling thread preferably comes from; None: the node of its CPU."""
    mode, nodes = ctypes.c_int(), (ctypes.c_ulong * (_MOST_NODES // _BITS))()
    _checked(int(_libc.syscall(_number(1), ctypes.byref(mode), nodes, ctypes.c_ulong(_MOST_NODES), None, 0)))
    if mode.value != _MPOL_PREFERRED:
        return None
    found = [i * _BITS + bit for i, word in enumerate(nodes) for bit in range(_BITS) if word >> bit & 1]
    return found[0] if found else None


def prefer_node(node: int | None) -> None:
    """Take memory of the calling thread, and of what it starts, from ``node`` if it can be (set_mempolicy(2))."""
    nodes = (ctypes.c_ulong * (_MOST_NODES // _BITS))()
    if node is None:
        _checked(int(_libc.syscall(_number(0), _MPOL_DEFAULT, None, ctypes.c_ulong(0))))
        return
    if not 0 <= node < _MOST_NODES:
        raise OSError(errno.EINVAL, f"there is no node {node}")
    nodes[node // _BITS] = 1 << node % _BITS
    _checked(int(_libc.syscall(_number(0), _MPOL_PREFERRED, nodes, ctypes.c_ulong(_MOST_NODES))))


def _number(index: int) -> int:
    numbers = _MEMPOLICY.get(platform.machine())
    if numbers is None:
        raise OSError(errno.ENOSYS, f"the system call's number on {platform.machine()} is not known")
    return numbers[index]
