"""Values of knobs: canonical forms, the grammar of what a profile wants, and comparison.

The same setting is written in many ways (tabs or spaces, hex masks or lists, `256mb` or bytes, a selector with
its choice in brackets), so everything is compared in one canonical form per type:

    int      decimal digits, in the knob's own unit             4096
    ints     such numbers, one space between                    4096 131072 33554432
    choice   the token that is selected                         madvise
    word     the word                                           performance
    text     words, one space between
    cpulist, cpumask   CPUs as a list, ranges joined            0-3,8    (none: empty)

A profile wants `X` or `=X` exactly, `>=X` at least (never lowers), `<=X` at most (never raises), `A|B` one of
them (A is written), `-` nothing. Numbers take `kb mb gb` (of 1024) and `us ms s`, in whatever unit the knob has
(pages too), and `N%` of the memory of the cgroup or host; CPUs take `$role`, `all`, `none` or a list.
"""

from __future__ import annotations

import math
import re

import msgspec

from tvops.cpu_lists import MAX_CPUS
from tvops.cpu_lists import format_cpus as format_cpus
from tvops.cpu_lists import parse_cpus as parse_cpus
from tvops.tuning.model import Facts, Knob, ValueType

_BYTES = {"b": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3}
_NANOSECONDS = {"ns": 1, "us": 1000, "ms": 10**6, "s": 10**9}
_UNITS = {"bytes": 1, "kbytes": 1024} | _NANOSECONDS
_ASCENDING = {f"net.ipv4.{name}" for name in ("tcp_rmem", "tcp_wmem", "tcp_mem", "udp_mem", "ip_local_port_range")}
"""Vectors that the kernel takes in any order, though only one makes sense."""
_INTEGER = re.compile(r"-?[0-9]{1,40}")
_NUMBER = re.compile(r"(-?[0-9]{1,40})\s*([a-z]*)", re.IGNORECASE | re.ASCII)
_SHARE = re.compile(r"([0-9]{1,3})%")
_MASK = re.compile(r"[0-9a-f]+(,[0-9a-f]{1,8})*", re.IGNORECASE)


class Wanted(msgspec.Struct, frozen=True):
    """What a profile wants of a knob: one wish, or one for each number of a vector."""

    text: str  # as written in the profile
    parts: tuple[tuple[str, str], ...]  # (operator "=", ">=", "<=" or "-", operand)


def parse_wanted(knob: Knob, value: object) -> Wanted:
    """Read what a profile says of ``knob``; raise ValueError telling what is wrong with it.

    A list, or words with blanks between, stands for the numbers of a vector.
    """
    words = [_word(v) for v in value] if isinstance(value, list) else [_word(value)]
    if knob.type == "ints" and len(words) == 1:
        words = words[0].split()
    text = " ".join(words)
    if knob.type != "ints":
        words = [text]
    if not text:
        raise ValueError("is empty; write '-' to leave the knob alone")
    return Wanted(text, tuple(_parse_part(knob, word) for word in words))


def _word(value: object) -> str:
    if isinstance(value, bool):
        raise ValueError(f"{value} is a YAML boolean; put the word in quotes")
    if value is None:
        return ""
    if not isinstance(value, (str, int, float)):
        raise ValueError("is neither a number nor a word nor a list of them")
    return str(value).strip()


def _parse_part(knob: Knob, word: str) -> tuple[str, str]:
    if word == "-":
        return "-", ""
    operator = next((o for o in (">=", "<=", "=") if word.startswith(o)), "")
    operand = word[len(operator) :].strip()
    if operator in (">=", "<="):
        if knob.type not in ("int", "ints"):
            raise ValueError(f"{word!r}: {operator} compares numbers, and this is a {knob.type}")
        if "|" in operand:
            raise ValueError(f"{word!r}: {operator} takes one number")
    options = _options(operand)
    if not all(options):
        raise ValueError(f"{word!r} has no value behind an operator")
    if knob.type in ("int", "ints"):
        for option in options:
            _check_number(knob, option)
    elif knob.type in ("cpulist", "cpumask"):
        if not operand.startswith("$") and operand not in ("all", "none"):
            parse_cpus(operand)
    elif knob.choices and (wrong := [o for o in options if o not in knob.choices]):
        raise ValueError(f"{wrong[0]!r} is none of {', '.join(knob.choices)}")
    return operator or "=", operand


def _options(operand: str) -> list[str]:
    return [option.strip() for option in operand.split("|")]


def _check_number(knob: Knob, text: str) -> None:
    if not text.endswith("%"):
        parse_number(text, knob.unit)
        return
    share = _SHARE.fullmatch(text)
    if not share or not 0 < int(share[1]) <= 100:
        raise ValueError(f"{text!r}: a share of memory is 1% to 100%")
    if knob.unit not in ("bytes", "kbytes", "pages"):
        raise ValueError(f"{text!r}: this knob is not an amount of memory")


def target(knob: Knob, wanted: Wanted, current: str | None, facts: Facts) -> str:
    """Give the canonical value that should stand there; equal to ``current`` where that is good already.

    Raises:
        ValueError: a vector of another length, an unknown role, a vector that would be out of order, or `-`, `>=`
            or `<=` where the current value is not known.
    """
    if knob.type in ("cpulist", "cpumask"):
        return _wanted_cpus(wanted.parts[0], current, facts)
    if knob.type in ("int", "ints"):
        have = current.split() if current else None
        if have is not None and len(have) != len(wanted.parts):
            raise ValueError(f"has {len(have)} numbers, and {len(wanted.parts)} are wanted")
        numbers = [
            _wanted_number(knob, part, have[i] if have is not None else None, facts)
            for i, part in enumerate(wanted.parts)
        ]
        if knob.id in _ASCENDING and numbers != sorted(numbers):
            raise ValueError(
                f"{' '.join(map(str, numbers))} is not in ascending order: minimum first, maximum last"
            )
        return " ".join(map(str, numbers))
    operator, operand = wanted.parts[0]
    if operator == "-":
        return _known(current)
    accepted = [normalise(knob.type, o) for o in _options(operand)]
    return current if current in accepted and current is not None else accepted[0]


def canonical(knob: Knob, wanted: Wanted, facts: Facts) -> str:
    """Give what is wanted in canonical form, with `>=` and `<=`: `>=16777216`, `- - >=16777216`, `madvise|never`.

    Raises:
        ValueError: an unknown role.
    """
    if knob.type in ("cpulist", "cpumask"):
        return wanted.text if wanted.parts[0][0] == "-" else _wanted_cpus(wanted.parts[0], None, facts)
    shown = []
    for operator, operand in wanted.parts:
        options = _options(operand)
        if knob.type in ("int", "ints"):
            options = [str(_amount(knob, option, facts)) for option in options if option]
        else:
            options = [normalise(knob.type, option) for option in options]
        shown.append("-" if operator == "-" else operator.removeprefix("=") + "|".join(options))
    return " ".join(shown)


def _known(current: str | None) -> str:
    if current is None:
        raise ValueError("the current value is not known")
    return current


def _wanted_number(knob: Knob, part: tuple[str, str], have: str | None, facts: Facts) -> int:
    operator, operand = part
    accepted = [_amount(knob, o, facts) for o in _options(operand)] if operand else []
    if operator == "=" and (have is None or not _INTEGER.fullmatch(have)):
        return accepted[0]
    if not _INTEGER.fullmatch(_known(have)):
        raise ValueError(f"shows {have!r}, which is not a number")
    now = int(_known(have))
    if operator == "-":
        return now
    if operator == "=":
        return now if now in accepted else accepted[0]
    return (max if operator == ">=" else min)(now, accepted[0], key=lambda n: _size(knob, n))


def _size(knob: Knob, number: int) -> float:
    """Give what a number counts as when it is compared: no limit is more than any limit."""
    return math.inf if number == knob.unlimited else number


def _amount(knob: Knob, operand: str, facts: Facts) -> int:
    if operand.endswith("%"):
        share = facts.memory_bytes * int(operand[:-1]) // 100
        return share // (facts.page_size if knob.unit == "pages" else _UNITS[knob.unit])
    return parse_number(operand, knob.unit, facts.page_size)


def parse_number(text: str, unit: str = "", page_size: int = 4096) -> int:
    """Read `4096`, `16mb`, `50us`, in ``unit``; raise ValueError.

    A suffix of bytes fits the units bytes, kbytes and pages, one of time the units ns, us, ms and s.
    """
    match = _NUMBER.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a number")
    number, suffix = int(match[1]), match[2].lower()
    if not suffix:
        return number
    sizes = _UNITS | {"pages": page_size}
    fits = (suffix in _BYTES and unit in ("bytes", "kbytes", "pages")) or (
        suffix in _NANOSECONDS and unit in _NANOSECONDS
    )
    if not fits:
        raise ValueError(f"{text!r}: {match[2]} does not fit a value in {unit or 'plain numbers'}")
    total = number * (_BYTES.get(suffix) or _NANOSECONDS[suffix])
    if total % sizes[unit]:
        raise ValueError(f"{text!r} is not a whole number of {unit}")
    return total // sizes[unit]


def _wanted_cpus(part: tuple[str, str], current: str | None, facts: Facts) -> str:
    operator, operand = part
    if operator == "-":
        return _known(current)
    if operand.startswith("$"):
        if operand[1:] not in facts.roles:
            raise ValueError(f"there is no CPU role {operand}; there are {', '.join(sorted(facts.roles))}")
        return format_cpus(facts.roles[operand[1:]])
    if operand == "all":
        return format_cpus(facts.cpus)
    return "" if operand == "none" else format_cpus(parse_cpus(operand))


def normalise(kind: ValueType, raw: str) -> str:
    """Give the canonical form of what a host shows; text that does not fit its type stays as it is, stripped."""
    text = raw.strip()
    if kind == "choice":
        selected = re.search(r"\[([^\]]*)\]", text)
        return selected[1].strip() if selected else text
    if kind in ("cpulist", "cpumask"):
        try:
            return format_cpus(parse_cpus(text) if kind == "cpulist" else parse_mask(text))
        except ValueError:
            return text
    words = text.split()
    if kind in ("int", "ints"):
        words = [str(int(word)) if _INTEGER.fullmatch(word) else word for word in words]
    return " ".join(words)


def written(knob: Knob, value: str, bits: int = 0) -> str:
    """Give the text that is written for a canonical value (a mask for `cpumask`, of ``bits`` bits at least)."""
    if knob.type == "cpumask":
        return format_mask(parse_cpus(value), bits)
    return value


def parse_mask(text: str) -> tuple[int, ...]:
    """Read a mask as the kernel writes it (`ff,00000000`); raise ValueError."""
    text = text.strip().removeprefix("0x")
    if not _MASK.fullmatch(text) or len(text) > MAX_CPUS // 2:
        raise ValueError(f"{text[:40]!r} is not a mask of CPUs such as ff or 3,00000000")
    words = text.split(",")
    # Behind the first, a group stands for 32 bits even where its zeros were left out.
    number = int("".join([words[0], *(word.zfill(8) for word in words[1:])]), 16)
    return tuple(i for i in range(number.bit_length()) if number >> i & 1)


def format_mask(cpus: tuple[int, ...], bits: int = 0) -> str:
    """Write CPUs as a mask in groups of 32 bits, most significant first."""
    number = sum(1 << cpu for cpu in set(cpus))
    width = max(number.bit_length(), bits, 1)
    groups = [f"{number >> shift & 0xFFFFFFFF:08x}" for shift in range((width - 1) // 32 * 32, -1, -32)]
    return ",".join(groups)
