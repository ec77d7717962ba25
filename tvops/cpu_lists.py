"""CPU lists as the kernel writes them: `0-3,8`."""

from __future__ import annotations

import re
from functools import lru_cache

CPU_LIST = re.compile(r"[0-9]{1,9}(-[0-9]{1,9})?(,[0-9]{1,9}(-[0-9]{1,9})?)*")
MAX_CPUS = 8192


@lru_cache(maxsize=256)  # the interrupts of a big host say the same thousands of times
def parse_cpus(text: str) -> tuple[int, ...]:
    """Read a CPU list as the kernel writes it: `0-3,8`; raise ValueError."""
    text = text.strip()
    if not text:
        return ()
    if not CPU_LIST.fullmatch(text):
        raise ValueError(f"{text!r} is not a list of CPUs such as 0-3,8")
    cpus: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if high < low or high >= MAX_CPUS:
            raise ValueError(f"{part!r} is not a range of CPUs")
        cpus.update(range(low, high + 1))
    return tuple(sorted(cpus))


def format_cpus(cpus: tuple[int, ...]) -> str:
    """Write CPUs as the kernel does: `0-3,8`."""
    ranges: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
