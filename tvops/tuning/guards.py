"""Guards: the facts that must hold for a profile to want something of a host.

virtual: true | false | kvm       container: true | false | docker     privileged, smt: true | false
kernel, cpus, numa_nodes, memory: ">=6.11"  (also <, <=, >, = and a bare value)
driver: virtio_net                one interface at least has this driver
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping

from tvops.tuning.model import Facts
from tvops.tuning.values import parse_number

FACTS = ("virtual", "container", "kernel", "cpus", "numa_nodes", "smt", "memory", "driver", "privileged")

_FORM = re.compile(r"(>=|<=|=|>|<)?\s*(\S+)")
_COMPARISONS = {">=": operator.ge, "<=": operator.le, "=": operator.eq, ">": operator.gt, "<": operator.lt}
_PHRASES = {  # fact -> what is needed where it must hold, and where it must not
    "virtual": ("a virtual machine", "a bare-metal host"),
    "container": ("a container", "a host that is no container"),
    "smt": ("SMT", "SMT to be off"),
    "privileged": ("root", "a caller without privileges"),
}
_KVM = ("kvm", "firecracker")  # the second is a monitor of the first


def check_guard(fact: str, wanted: object) -> None:
    """Raise ValueError where a guard names no fact, or compares it with what it can never be."""
    if fact not in FACTS:
        raise ValueError(f"is no fact; there are {', '.join(FACTS)}")
    if isinstance(wanted, bool):
        if fact not in _PHRASES:
            raise ValueError(f"must be a value, not {str(wanted).lower()}")
    elif isinstance(wanted, float):
        raise ValueError(f"{wanted} is a number to YAML, which takes 6.10 for 6.1; put it in quotes")
    elif fact in ("smt", "privileged"):
        raise ValueError("must be true or false")
    elif isinstance(wanted, list | dict) or wanted is None or not str(wanted).strip():
        raise ValueError("must be one value")
    elif fact in ("kernel", "cpus", "numa_nodes", "memory"):
        _parse(fact, str(wanted))


def refusal(when: Mapping[str, object], facts: Facts) -> str:
    """Tell which guard does not hold on a host, in one clause; empty where all do."""
    for fact, wanted in when.items():
        if reason := _refusal(fact, wanted, facts):
            return reason
    return ""


def _refusal(fact: str, wanted: object, facts: Facts) -> str:
    if isinstance(wanted, bool):
        have = bool(getattr(facts, fact))
        needs = _PHRASES[fact][0 if wanted else 1]
        return "" if have == wanted else f"needs {needs}, this is {_shown(fact, facts)}"
    text = str(wanted).strip()
    if fact in ("virtual", "container"):
        have_name = getattr(facts, fact)
        fits = have_name == text or (fact == "virtual" and text == "kvm" and have_name in _KVM)
        return "" if fits else f"needs {text}, this is {_shown(fact, facts)}"
    if fact == "driver":
        drivers = sorted(set(facts.nics.values()))
        return "" if text in drivers else f"needs a {text} interface, here is {', '.join(drivers) or 'none'}"
    compare, amount = _parse(fact, text)
    have_amount = _amount(fact, facts)[: len(amount)]
    if _COMPARISONS[compare](have_amount, amount):
        return ""
    if fact == "kernel":
        return f"needs kernel {text}, this is {facts.release}"
    return f"needs {text} {_NOUNS[fact]}, there are {_shown(fact, facts)}"


_NOUNS = {"cpus": "CPUs", "numa_nodes": "NUMA nodes", "memory": "of memory"}


def _parse(fact: str, text: str) -> tuple[str, tuple[int, ...]]:
    match = _FORM.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a comparison such as '>=4'")
    if fact == "kernel":
        if not re.fullmatch(r"\d+(\.\d+){0,2}", match[2]):
            raise ValueError(f"{text!r} is not a kernel version such as '>=6.11'")
        return match[1] or "=", tuple(int(part) for part in match[2].split("."))
    return match[1] or "=", (parse_number(match[2], "bytes" if fact == "memory" else ""),)


def _amount(fact: str, facts: Facts) -> tuple[int, ...]:
    amounts = {"cpus": len(facts.cpus), "numa_nodes": facts.numa_nodes, "memory": facts.memory_bytes}
    return facts.kernel if fact == "kernel" else (amounts[fact],)


def _shown(fact: str, facts: Facts) -> str:
    if fact == "virtual":
        return facts.virtual or "bare metal"
    if fact == "container":
        return f"a container ({facts.container})" if facts.container else "no container"
    if fact == "memory":
        return f"{facts.memory_bytes // 2**20} MiB"
    shown = {
        "cpus": str(len(facts.cpus)),
        "numa_nodes": str(facts.numa_nodes),
        "smt": "on" if facts.smt else "off",
        "privileged": "root" if facts.privileged else "an ordinary user",
    }
    return shown[fact]
