"""The examination: gathers every finding, and writes them for people and scripts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tvops.json_text import json_indented
from tvops.settings import load_settings
from tvops.terminal import printable
from tvops.tuning.doctor.finding import SEVERITIES, WRONG, Finding, worst_first
from tvops.tuning.doctor.machine import advice, rivals, storage
from tvops.tuning.doctor.servers import server_findings
from tvops.tuning.doctor.symptoms import symptoms
from tvops.tuning.history import drift
from tvops.tuning.journal import StateDirectory, state_directory
from tvops.tuning.listing import change, gather
from tvops.tuning.model import Item
from tvops.tuning.plan import Limits
from tvops.tuning.setup import Reach, Setup, opened


def examine(reach: Reach, profile: str, seconds: float) -> list[Finding]:
    """Look at host, servers and settings; takes a little more than ``seconds``.

    Raises:
        UsageError: the profile or a setting is wrong.
    """
    settings = load_settings({"data_dir": reach.data_dir}, file=reach.config)
    tune = _tune_command(reach, profile)
    with opened(reach) as setup:
        resolved = setup.resolve(profile)
        found = [
            *_unfinished(),
            *storage(settings),
            *server_findings(setup.server_facts(), tune),
            *symptoms(setup.host, seconds),
            *rivals(setup.host),
            *_drifted(setup),
            *_untuned(setup.plan(resolved, Limits(risk_max="disruptive")), tune, profile),
            *advice(setup.host, setup.facts),
        ]
    return worst_first(found)


def _tune_command(reach: Reach, profile: str) -> str:
    """Give the command that tunes what was looked at, to be pasted into a shell."""
    words = ["tvops", "tune", "--profile", profile]
    words += [word for server in reach.servers for word in ("--redis", server)]
    words += ["--data-dir", reach.data_dir] if reach.data_dir else []
    words += ["--config", str(reach.config)] if reach.config else []
    return shlex.join(words)


def _unfinished() -> list[Finding]:
    state = StateDirectory(state_directory())
    if state.holder():
        return []  # a run is under way
    return [
        Finding(
            severity="critical",
            about="tune.interrupted",
            what=f"the run {run.id} was interrupted in the middle",
            why="the host is between two states",
            fix="tvops tune --recover undo",
        )
        for run in state.interrupted()
    ]


def _drifted(setup: Setup) -> list[Finding]:
    runs = StateDirectory(state_directory()).runs()
    return [
        Finding(
            severity="warning",
            about=f"drift.{one.name}",
            what=f"{one.name} is {'gone' if one.found is None else one.found}, tvops wrote {one.ours or 'it'}",
            why=one.reason or "somebody changed it since",
            fix="tvops tune drift",
        )
        for one in drift(runs, setup.catalogue, setup.drivers, setup.host.root)
    ]


def _untuned(items: Sequence[Item], tune: str, profile: str) -> list[Finding]:
    name = shlex.quote(profile)
    fixes = {
        "pending": "{tune} --only {item.knob}",
        "privilege": "sudo {tune} --only {item.knob}",
        "reboot": "tvops tune persist --profile {name}, then reboot",
        "restart": "tvops tune persist --profile {name}; {item.reason}",
        "serve": "start it again: tvops serve --profile {name}",
    }
    findings = []
    for label, item in gather(items):
        if item.state not in fixes:
            continue
        fix = fixes[item.state].format(tune=tune, name=name, item=item)
        findings.append(
            Finding(
                severity="critical" if item.required else "tuning",
                about=item.id,
                what=f"{label} is {change(item).replace(' → ', ', wanted ')}",
                why=item.why,
                fix=fix,
            )
        )
    return findings


def render(findings: Sequence[Finding], everything: bool) -> str:
    """Write findings as text, worst first; notes only where ``everything`` is asked for."""
    lines = []
    for finding in findings:
        if finding.severity == "note" and not everything:
            continue
        lines.append(f"{finding.severity:<8}  {finding.what}")
        lines += [
            f"{'':<8}  {text}" for text in (finding.why, f"fix: {finding.fix}" if finding.fix else "") if text
        ]
    counts = {severity: sum(f.severity == severity for f in findings) for severity in SEVERITIES}
    total = ", ".join(f"{count} {severity}" for severity, count in counts.items() if count)
    if not any(finding.severity in WRONG for finding in findings):
        lines.append(f"nothing is wrong{f' ({total})' if total else ''}")
    else:
        lines.append(total)
    return printable("\n".join(lines))


def to_json(profile: str, findings: Sequence[Finding]) -> bytes:
    """Write findings as JSON."""
    wrong = any(finding.severity in WRONG for finding in findings)
    document = {"schema": 1, "profile": profile, "exit_code": 3 if wrong else 0, "findings": findings}
    return json_indented(document)
