"""A finding of the doctor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

Severity = Literal["critical", "warning", "tuning", "note", "advice"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "tuning", "note", "advice")
"""Worst first: data or the machine at risk; latency is being lost now; a setting is not as the profile wants it;
worth knowing; what software cannot change. The first three make the host unfit (exit code 3)."""

WRONG: frozenset[Severity] = frozenset({"critical", "warning", "tuning"})


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the doctor has to say."""

    severity: Severity
    about: str  # a stable name for scripts: "steal", "redis.maxmemory@ledger"
    what: str  # what was seen, with its numbers
    why: str = ""  # what it does to latency or data
    fix: str = ""  # a command, or what to do by hand


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort by severity; within one as they were found."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
