"""What a profile may say of an embedded server's configuration, and what not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tvops.engine.stack_tuning import Effect, EffectState, outcome

if TYPE_CHECKING:
    from tvops.engine.bus.roles import Role

LEAST_MEMORY_MB = {"ledger": 16, "market": 8, "results": 8}

_OURS = frozenset({
    "aclfile", "aof-load-truncated", "aof-use-rdb-preamble", "appenddirname", "appendfilename", "bind",
    "cluster-enabled", "crash-memcheck-enabled", "daemonize", "databases", "dbfilename", "dir",
    "enable-debug-command", "enable-module-command", "enable-protected-configs", "include", "loadmodule",
    "logfile", "pidfile", "port", "protected-mode", "rename-command", "replicaof", "requirepass", "save",
    "shutdown-timeout", "slaveof", "supervised", "syslog-enabled", "tls-port", "unixsocket", "unixsocketperm",
    "user",
})  # fmt: skip
_CONFIG_ERROR = re.compile(r"FATAL CONFIG FILE ERROR.*?^>>> '([\w-]+)", re.DOTALL | re.MULTILINE)
_PLAIN = re.compile(r'[^\x00-\x1f\x7f"\'\\#]*')
_CPU_KEYS = {
    "server_cpulist": True, "bio_cpulist": True, "bgsave_cpulist": False, "aof_rewrite_cpulist": False,
}  # fmt: skip
"""Whether what a key speaks of shares the server's CPUs. Processes that it forks must not: one that copies
gigabytes for a minute would share a core with the thread that answers."""


def fixed(role: Role) -> dict[str, str]:
    """Give what a role stands for, and no profile can change."""
    if not role.durable:
        return {"maxmemory-policy": role.policy, "appendonly": "no"}
    return {
        "maxmemory-policy": role.policy, "appendonly": "yes", "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
    }  # fmt: skip


def part(
    role: Role, wishes: Mapping[str, str], defaults: Mapping[str, str]
) -> tuple[dict[str, str], list[Effect]]:
    """Part the wishes for the server of ``role``.

    Args:
        role: what the server is for.
        wishes: key -> value.
        defaults: what it has anyway.

    Returns:
        What it gets beyond its defaults; and what becomes of the other wishes.
    """
    taken, others = {}, []
    for key, value in wishes.items():
        if defaults.get(key) == value:
            others.append(outcome("redis", key, role.name, wishes, value, None))
        elif reason := objection(role, key, value):
            others.append(left_out(role, key, value, "refused", reason))
        else:
            taken[key] = value
    return taken, others


_MOST_CLIENTS = 1_000_000


def objection(role: Role, key: str, value: str) -> str:
    """Tell why the server of ``role`` cannot have ``value``; empty where it can."""
    if key in fixed(role):
        return f"the {role.name} role stands for {key} {fixed(role)[key]}"
    if key in _OURS:
        return "tvops serve sets it itself"
    if not _PLAIN.fullmatch(value) or not re.fullmatch(r"[a-z0-9_-]+( [a-z]+)?", key):
        return "has characters that a configuration file cannot have there"
    if key == "maxmemory" and not value.isdigit():
        return "must be a number of bytes"
    if key == "maxmemory" and not (role.durable and value == "0"):
        least = LEAST_MEMORY_MB[role.name] << 20
        return f"the {role.name} role needs {least} bytes at least" if int(value) < least else ""
    if key == "maxclients" and not (value.isdecimal() and len(value) <= 7 and 0 < int(value) <= _MOST_CLIENTS):
        # The server tries every limit of open files between that number and what it may have, one by one.
        return f"must be 1 to {_MOST_CLIENTS}"
    return ""


def left_out(role: Role, key: str, value: str, state: EffectState, reason: str) -> Effect:
    """Make the effect of a wish that a server does not get."""
    return Effect(kind="redis", name=key, target=role.name, wanted=value, state=state, reason=reason)


def cpu_lines(wishes: Mapping[str, str], cpus: str) -> dict[str, str]:
    """Give the keys that put a server on the CPUs of its process wishes, and what it forks on all of ``cpus``."""
    wanted = wishes.get("affinity", "")
    return {key: wanted if shared else cpus for key, shared in _CPU_KEYS.items()} if wanted else {}


def config_line(key: str, value: str) -> str:
    """Write a line of a configuration file."""
    return f"{key} {value}" if value.strip() else f'{key} ""'


def unknown_key(log: str) -> str | None:
    """Give the key that a server did not know or want, from what it said when it ended."""
    found = _CONFIG_ERROR.search(log)
    return found[1] if found else None
